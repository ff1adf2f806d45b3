import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#src/checkpoint/safetensors.js";
import { packPairs } from "#src/data/pack.js";
import { readModelShape } from "#src/model/index.js";
import { modelBlocks } from "#src/train/plan.js";
import { benchModule } from "./modules.js";

const { stepFlops, visibleKeys, parameterCount } = await benchModule("flops.mjs");
const { models, configJson } = await benchModule("models.mjs");
const { makePairs, tokenizedRow } = await benchModule("pairs.mjs");
const { writeModel } = await benchModule("model-files.mjs");

test("bench flops: visible keys are those of the packed segments", () => {
  const pairs = makePairs(models.tiny!, 6, 5);
  const packed = packPairs(
    pairs.map((pair) => {
      const row = tokenizedRow(pair);
      const side = (name: string) => ({
        ids: Int32Array.from(row[`${name}_input_ids`]!),
        labels: Int32Array.from(row[`${name}_labels`]!),
      });
      return { chosen: side("chosen"), rejected: side("rejected") };
    }),
    { maxTokens: 1e6, prefixSharing: true },
  );
  for (const window of [undefined, 1, 7, 30, 1000]) {
    let counted = 0;
    for (const { segments } of packed) {
      for (let s = 0; s < segments.length; s += 4) {
        const [start, end, prefixStart, prefixEnd] = segments.subarray(s, s + 4);
        for (let row = start!; row < end!; row++) {
          const keys = prefixEnd! - prefixStart! + row - start! + 1;
          counted += Math.min(keys, window ?? keys);
        }
      }
    }
    assert.equal(
      pairs.reduce((sum, pair) => sum + visibleKeys(pair, window), 0),
      counted,
    );
  }
});

test("bench flops: a step counted by hand", () => {
  const model = {
    ...models.tiny!,
    ...{
      hiddenSize: 4,
      numLayers: 2,
      numHeads: 2,
      numKvHeads: 1,
      intermediateSize: 3,
      vocabSize: 5,
    },
  };
  const pairs = [{ prompt: [1, 3], chosen: [2], rejected: [3, 2] }];
  // D = 2; a layer: qkv 4·8, o 4·4, gate and up 4·6, down 3·4 = 84 weights; T = 5, N = 3.
  // Visible keys: prompt 1+2, chosen 3, rejected 3+4 = 13.
  assert.deepEqual(stepFlops(model, pairs), {
    linear: 6 * 5 * 2 * 84,
    head: 6 * 3 * 4 * 5,
    attention: 14 * 2 * (2 * 2) * 13,
    total: 5040 + 360 + 1456,
  });
});

test("bench model: its files hold the weights of the shape they were written for", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "simper-bench-model-"));
  try {
    const model = models.tiny!;
    writeModel(model, folder);
    const file = path.join(folder, "config.json");
    const shape = readModelShape({ path: file, fields: JSON.parse(readFileSync(file, "utf8")) });
    const parts = modelBlocks(shape).flatMap((block) =>
      block.parameters.flatMap(({ parts, shape: [, ...rest] }) =>
        parts.map(({ name, rows }) => [name, [rows, ...rest]] as const),
      ),
    );
    const tensors = await openSafetensors(folder);
    try {
      assert.deepEqual(tensors.names().sort(), parts.map(([name]) => name).sort());
      for (const [name, extents] of parts)
        assert.deepEqual(tensors.info(name).shape, extents, name);
      const bytes = new Uint16Array(512 * 64);
      const name = "model.embed_tokens.weight";
      await tensors.read(name, 0, bytes.byteLength, new Uint8Array(bytes.buffer));
      const values = new Float32Array(Uint32Array.from(bytes, (b) => b << 16).buffer);
      const std = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
      assert.ok(Math.abs(std - 0.02) < 5e-4, `standard deviation ${std}`);
    } finally {
      await tensors.close();
    }
    const elements = parts.reduce((sum, [, extents]) => sum + extents.reduce((a, b) => a * b), 0);
    assert.equal(parameterCount(model), elements);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("bench model: the 135M shape has SmolLM2-135M's parameters", () => {
  assert.equal(parameterCount(models["135m"]!), 134_515_008);
  assert.equal(configJson(models["135m"]!).num_key_value_heads, 3);
});
