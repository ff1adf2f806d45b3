import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";
import { script } from "./scripts.js";

const { config, initialWeights } = await script("init-model.mjs");

const model = path.join(root, "configs", "quickstart", "model");

interface Header {
  [name: string]: { dtype: string; shape: number[]; data_offsets: [number, number] };
}

function readHeader(file: Buffer): Header {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Header;
  delete header.__metadata__;
  return header;
}

test("model: the committed directory is at most 6 MB", () => {
  const bytes = readdirSync(model).reduce(
    (sum, name) => sum + statSync(path.join(model, name)).size,
    0,
  );
  assert.ok(bytes <= 6e6, `${bytes} bytes`);
});

test("model: the committed weights and config are those that init-model.mjs starts, trained", () => {
  const committed = JSON.parse(readFileSync(path.join(model, "config.json"), "utf8")) as object;
  assert.deepEqual({ ...committed, torch_dtype: "float32" }, config);

  const file = readFileSync(path.join(model, "model.safetensors"));
  const header = readHeader(file);
  const first = initialWeights();
  assert.deepEqual(Object.keys(header).sort(), [...first.keys()].sort());
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    assert.equal(dtype, "BF16", name);
    assert.deepEqual(shape, first.get(name)!.shape, name);
    assert.equal(data_offsets[1] - data_offsets[0], 2 * first.get(name)!.data.length, name);
  }
});

test("recipe: quickstart.yaml is understood as a whole", () => {
  const cli = path.join(root, "dist", "cli.js");
  const run = spawnSync(process.execPath, [cli, "plan", "configs/quickstart.yaml"], {
    cwd: root,
    encoding: "utf8",
  });
  assert.equal(run.status, 0, run.stderr);
  assert.equal(run.stderr, "", "no notice about a key without effect");
});
