import assert from "node:assert/strict";
import { test } from "node:test";
import { defineConfig } from "#src/config/load.js";
import { ConfigError } from "#src/errors.js";

const base = { modelNameOrPath: "m", datasetMixer: { d: 1 }, maxLength: 64 };

test("recipe: max_prompt_length decides nothing under corrected semantics, and a notice says so", () => {
  const over = { ...base, maxPromptLength: 64 };
  assert.throws(
    () => defineConfig(over),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /maxPromptLength|max_prompt_length/);
      return true;
    },
  );
  const { config, notices } = defineConfig({ ...over, dataSemantics: "corrected" });
  assert.equal(config.dataSemantics, "corrected");
  assert.match(
    notices.join("\n"),
    /^accepted, no effect: .*max_prompt_length \(data_semantics corrected cuts a prompt only as far as/m,
  );
  // Nothing is said of a default that is not used.
  const open = defineConfig({ ...base, dataSemantics: "corrected" });
  assert.doesNotMatch(open.notices.join("\n"), /max_prompt_length/);
  const reference = { ...base, maxLength: 512 };
  assert.match(
    defineConfig(reference).notices.join("\n"),
    /default is used: max_prompt_length: 128/,
  );
});

test("recipe: dataset_configs is honoured, so nothing is said of it", () => {
  const { config, notices } = defineConfig({
    ...base,
    maxPromptLength: 32,
    datasetConfigs: ["en"],
  });
  assert.deepEqual(config.datasetConfigs, ["en"]);
  assert.doesNotMatch(notices.join("\n"), /dataset_configs/);
});
