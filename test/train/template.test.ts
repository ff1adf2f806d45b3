import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loadChatTemplate } from "#src/data/chat.js";
import { MISTRAL_TEMPLATE } from "#src/data/template-source.js";
import { makeTinyModel } from "../model/tiny.js";
import { runRecipe, temporaryFolder, trajectory, writeLines } from "./support.js";

const turn = (role: string, content: string) => ({ role, content });
const rows = ["one", "two"].map((word) => ({
  chosen: [turn("user", `Say ${word}`), turn("assistant", word)],
  rejected: [turn("user", `Say ${word}`), turn("assistant", "no")],
}));

test("train: the chat template in force is saved with the model, wherever it came from", async (t) => {
  const folder = temporaryFolder(t);
  const datasetMixer = { [writeLines(path.join(folder, "train.jsonl"), rows)]: 1 };
  const run = async (name: string, changes: Parameters<typeof trajectory>[0] = {}) => {
    const modelNameOrPath = await makeTinyModel(path.join(folder, name));
    // Templates are kept in both places: old readers know only the second.
    const config = path.join(modelNameOrPath, "tokenizer_config.json");
    const fields = JSON.parse(readFileSync(config, "utf8")) as object;
    writeFileSync(config, JSON.stringify({ ...fields, chat_template: "old" }));
    const outputDir = path.join(folder, `out-${name}`);
    const recipe = { modelNameOrPath, datasetMixer, outputDir, maxSteps: 1, ...changes };
    const { notices } = await runRecipe({ ...trajectory({}), ...recipe });
    const saved = readFileSync(path.join(outputDir, "chat_template.jinja"), "utf8");
    const { chat_template: inConfig } = JSON.parse(
      readFileSync(path.join(outputDir, "tokenizer_config.json"), "utf8"),
    ) as { chat_template: string };
    return { saved, inConfig, outputDir, notices: notices.join("\n") };
  };

  const own = await run("plain");
  assert.equal(own.saved, readFileSync(path.join(folder, "plain/chat_template.jinja"), "utf8"));
  assert.equal(own.inConfig, "old");

  const file = path.join(folder, "mine.jinja");
  const text = "{% for m in messages %}{{ m.role ~ ':' ~ m.content ~ eos_token }}{% endfor %}";
  writeFileSync(file, text);
  const recipe = await run("of-recipe", { chatTemplate: file });
  assert.deepEqual([recipe.saved, recipe.inConfig], [text, text]);

  // BOS is put before the prompts of pairs by the trainer; in generation the template has to write it.
  const mistral = await run("tiny-Mistral");
  assert.equal(mistral.saved, `{{ bos_token }}${MISTRAL_TEMPLATE.source}`);
  assert.equal(mistral.inConfig, mistral.saved);
  assert.match(mistral.notices, /has "mistral" in it, so pairs are rendered by the reference's/);
  const loaded = await loadChatTemplate(mistral.outputDir, { bos_token: "<s>", eos_token: "</s>" });
  assert.equal(loaded.render([turn("user", " Hi ")], "r"), "<s>[INST] Hi [/INST]");

  const corrected = await run("other-mistral", { dataSemantics: "corrected" });
  assert.equal(corrected.saved, own.saved);
});
