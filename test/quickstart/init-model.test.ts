import assert from "node:assert/strict";
import { test } from "node:test";
import { script } from "./scripts.js";

const { config, initialWeights, safetensors } = await script("init-model.mjs");

test("init: weights are the same every time and spread as their inputs ask", () => {
  const weights = initialWeights();
  assert.deepEqual(initialWeights(), weights);
  const q = weights.get("model.layers.0.self_attn.q_proj.weight");
  assert.ok(q !== undefined);
  const variance = q.data.reduce((sum, x) => sum + x * x, 0) / q.data.length;
  // The relative error of a variance of n normals is sqrt(2/n): five of those.
  assert.ok(Math.abs((variance * q.shape[1]!) / 0.64 - 1) < 5 * Math.sqrt(2 / q.data.length));
  for (const { shape, data } of weights.values()) {
    assert.equal(
      data.length,
      shape.reduce((a, b) => a * b, 1),
    );
  }
});

test("init: the trained model stays below 6 MB in bf16, and no tensor of a tied Llama is missing", () => {
  const weights = initialWeights();
  const parameters = [...weights.values()].reduce((sum, { data }) => sum + data.length, 0);
  assert.ok(2 * parameters < 6e6, `${parameters} parameters`);
  assert.equal(weights.size, 2 + 9 * Number(config.num_hidden_layers));
});

test("init: a safetensors file holds each tensor where its header says", () => {
  const file = safetensors(
    new Map([
      ["a", { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) }],
      ["b", { shape: [1], data: Float32Array.of(-0.5) }],
    ]),
  );
  const length = Number(file.readBigUInt64LE(0));
  assert.equal(length % 8, 0);
  assert.deepEqual(JSON.parse(file.toString("latin1", 8, 8 + length)), {
    __metadata__: { format: "pt" },
    a: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16] },
    b: { dtype: "F32", shape: [1], data_offsets: [16, 20] },
  });
  const floats = [0, 4, 8, 12, 16].map((at) => file.readFloatLE(8 + length + at));
  assert.deepEqual(floats, [1, 2, 3, 4, -0.5]);
  assert.equal(file.length, 8 + length + 20);
});
