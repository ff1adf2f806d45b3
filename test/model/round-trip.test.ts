import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { readModel, readWeights } from "#src/inference/model.js";
import { score } from "#src/inference/score.js";
import { fixture } from "../support/paths.js";
import { readTensors } from "../train/support.js";
import { makeTinyModel, randomWeights, tinyConfig, weightShapes, writeWeights } from "./tiny.js";

function folder(t: TestContext): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), "simper-model-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Loads a model directory and writes its weights into `to`. */
async function saveAs(
  from: string,
  to: string,
  bf16: boolean,
  dtype: "f32" | "bf16",
  maxShardBytes?: number,
) {
  const model = await readWeights(await readModel(from), { device: "cpu", bf16 });
  try {
    return await model.withMover((mover) => mover.save(to, model.weights(), dtype, maxShardBytes));
  } finally {
    model.dispose();
  }
}

const models = ["llama-gqa/model", "llama-tied/model", "llama-tied/model-sharded"];
for (const name of models) {
  test(`${name}: loaded and saved, every tensor is what it was, bit for bit`, async (t) => {
    const from = fixture("model", ...name.split("/"));
    const to = folder(t);
    await saveAs(from, to, false, "f32");
    const before = await readTensors(from);
    const after = await readTensors(to);
    assert.deepEqual([...after.keys()].sort(), [...before.keys()].sort());
    for (const [tensor, { shape, values }] of before) {
      assert.equal(after.get(tensor)!.dtype, "F32");
      assert.deepEqual(after.get(tensor)!.shape, shape, tensor);
      assert.deepEqual(after.get(tensor)!.values, values, tensor);
    }
  });
}

test("a bf16 model survives bf16 memory and a bf16 file bit for bit", async (t) => {
  const from = fixture("model", "llama-tied", "model");
  const to = folder(t);
  await saveAs(from, to, true, "bf16");
  const before = await readTensors(from);
  for (const [name, tensor] of await readTensors(to))
    assert.deepEqual(tensor, before.get(name), name);
});

test("f32 weights are rounded to the nearest bf16, ties to even", async (t) => {
  const to = folder(t);
  await saveAs(fixture("model", "llama-gqa", "model"), to, false, "bf16");
  const before = await readTensors(fixture("model", "llama-gqa", "model"));
  for (const [name, { dtype, values }] of await readTensors(to)) {
    assert.equal(dtype, "BF16");
    const bits = new Uint32Array(before.get(name)!.values.slice().buffer);
    const nearest = bits.map((word) => ((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000) >>> 0);
    assert.deepEqual(new Uint32Array(values.buffer), nearest, name);
  }
});

test("a model above the shard limit is saved in shards with an index that loads", async (t) => {
  const from = fixture("model", "llama-gqa", "model");
  const to = folder(t);
  const { files, index } = await saveAs(from, to, false, "f32", 100_000);
  assert.ok(files.length > 1);
  assert.ok(files.every((file) => /model-\d{5}-of-\d{5}\.safetensors$/.test(file)));
  writeFileSync(path.join(to, "model.safetensors.index.json"), JSON.stringify(index));
  const before = await readTensors(from);
  const after = await readTensors(to);
  assert.deepEqual([...after.keys()].sort(), [...before.keys()].sort());
  for (const [name, { values }] of before) assert.deepEqual(after.get(name)!.values, values, name);
});

test("a model that is larger than the staging memory is moved in pieces", async (t) => {
  // The embedding alone has 18 MB; staging holds 16 MiB.
  const config = {
    vocab_size: 35_000,
    hidden_size: 128,
    num_hidden_layers: 1,
    num_attention_heads: 4,
  };
  const from = await makeTinyModel(path.join(folder(t), "big"), { config, tokenizer: false });
  const to = folder(t);
  await saveAs(from, to, false, "f32");
  assert.deepEqual(readdirSync(to), ["model.safetensors"]);
  const before = await readTensors(from);
  for (const [name, tensor] of await readTensors(to)) {
    const same = Buffer.from(tensor.values.buffer).equals(
      Buffer.from(before.get(name)!.values.buffer),
    );
    assert.ok(same, name);
  }
});

/** Mean log-prob of one sequence. */
async function meanOf(dir: string, ids: readonly number[]): Promise<number> {
  for await (const { mean } of score(await readModel(dir), [ids], { device: "cpu" })) return mean;
  throw new Error("no score came");
}

test("a tied model that brings its lm_head, and old rotary tables, loads as if it did not", async (t) => {
  const dir = await makeTinyModel(path.join(folder(t), "tied"), { tokenizer: false });
  const ids = [1, 2, 3, 4];
  const plain = await meanOf(dir, ids);
  const shapes = weightShapes(tinyConfig);
  const weights = [...randomWeights(tinyConfig)];
  const V = tinyConfig.vocab_size;
  const C = tinyConfig.hidden_size;
  await writeWeights(path.join(dir, "model.safetensors"), [
    ...weights.map(([name, values]) => [name, shapes.get(name)!, values] as const),
    ["lm_head.weight", [V, C], new Float32Array(V * C)],
    ["model.layers.0.self_attn.rotary_emb.inv_freq", [4], new Float32Array(4)],
  ]);
  assert.equal(await meanOf(dir, ids), plain);
});

test("rms_norm_eps, rope_theta and the tie are read, not assumed", async (t) => {
  const ids = [5, 600, 7, 8, 90, 5, 600];
  const parent = folder(t);
  const variants = {
    plain: {},
    theta: { rope_theta: 100 },
    eps: { rms_norm_eps: 0.5 },
  };
  const means: number[] = [];
  for (const [name, extra] of Object.entries(variants)) {
    const dir = await makeTinyModel(path.join(parent, name), { extra, tokenizer: false });
    means.push(await meanOf(dir, ids));
  }
  const untied = path.join(parent, "untied");
  await makeTinyModel(untied, { config: { tie_word_embeddings: false }, tokenizer: false });
  means.push(await meanOf(untied, ids));
  assert.equal(new Set(means).size, 4, means.join(", "));
});

test("transformers 4 and 5 spell the same model", async (t) => {
  const parent = folder(t);
  const old = await makeTinyModel(path.join(parent, "old"), {
    config: { rope_theta: 5000 },
    tokenizer: false,
  });
  const spelling = {
    rope_theta: undefined,
    rope_parameters: { rope_theta: 5000, rope_type: "default" },
    torch_dtype: undefined,
    dtype: "float32",
    num_key_value_heads: 2,
    head_dim: 8,
  };
  const now = await makeTinyModel(path.join(parent, "new"), { extra: spelling, tokenizer: false });
  const fields = JSON.parse(readFileSync(path.join(now, "config.json"), "utf8"));
  assert.equal(fields.rope_theta, undefined);
  const ids = [3, 1, 4, 1, 5, 9, 2, 6];
  assert.equal(await meanOf(now, ids), await meanOf(old, ids));
});
