import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { fixture } from "../support/paths.js";
import { gqaModel, readTensors, runRecipe, temporaryFolder, trajectory } from "./support.js";

/** Ten steps of transformers in float64: test/fixtures/model/README.md. */
interface Expected {
  readonly steps: readonly Record<string, number>[];
  readonly change_norm: number;
  readonly change_norms: Readonly<Record<string, number>>;
}

const want = JSON.parse(
  readFileSync(fixture("model", "llama-gqa", "trajectory.json"), "utf8"),
) as Expected;

function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum);
}

// One recipe, many ways to compute it: none may change what is learnt.
const ways: Readonly<Record<string, Partial<RecipeInput>>> = {
  "as the recipe says": {},
  "gradient checkpointing": { gradientCheckpointing: true },
  "chosen and rejected as separate sequences": { prefixSharing: false },
  "one or two pairs per micro-batch": { maxTokensPerMicroBatch: 128 },
  "a batch of 4 instead of two of 2": { perDeviceTrainBatchSize: 4, gradientAccumulationSteps: 1 },
  "a batch of 1, four times": { perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 4 },
};

for (const [way, changes] of Object.entries(ways)) {
  test(`ten f32 steps of SimPER follow transformers in float64: ${way}`, async (t) => {
    const outputDir = temporaryFolder(t);
    const { steps } = await runRecipe({ ...trajectory(changes), outputDir });
    assert.equal(steps.length, want.steps.length);
    for (const [i, expected] of want.steps.entries()) {
      const got = steps[i]!;
      const { step, pairs, learning_rate, ...metrics } = expected;
      assert.equal(got.step, step);
      assert.ok(Math.abs(got.learning_rate! - learning_rate!) <= 1e-12 * 0.002, `rate of ${step}`);
      for (const [name, value] of Object.entries(metrics)) {
        const error = Math.abs(got[name]! - value) / Math.abs(value);
        // Measured: 4e-6, f32 rounding carried through ten steps.
        const tolerance = name === "grad_norm" ? 1e-4 : 1e-5;
        assert.ok(error <= tolerance, `step ${step} ${name}: ${got[name]}, expected ${value}`);
      }
    }
    await checkWeights(outputDir);
  });
}

async function checkWeights(outputDir: string): Promise<void> {
  const got = await readTensors(outputDir);
  const expected = await readTensors(fixture("model", "llama-gqa", "trajectory.safetensors"));
  assert.deepEqual([...got.keys()].sort(), [...expected.keys()].sort());
  let total = 0;
  for (const [name, { shape, values }] of expected) {
    const tensor = got.get(name)!;
    assert.equal(tensor.dtype, "F32");
    assert.deepEqual(tensor.shape, shape);
    const error = distance(tensor.values, values);
    total += error ** 2;
    // The least of the mistakes in the fixture's table, adam_beta2 0.99, moves one by 3e-3.
    assert.ok(error <= 1e-3 * want.change_norms[name]!, `${name}: off by ${error}`);
  }
  assert.ok(Math.sqrt(total) <= 2e-4 * want.change_norm, `weights: off by ${Math.sqrt(total)}`);
}

test("the same steps in bf16 stay near float64, and bf16 weights are written", async (t) => {
  const outputDir = temporaryFolder(t);
  const { steps } = await runRecipe({ ...trajectory({ bf16: true }), outputDir });
  for (const [i, { loss }] of want.steps.entries()) {
    const error = Math.abs(steps[i]!.loss! - loss!);
    // bf16 keeps 8 bits: 4e-3 per rounding, and ten steps build on each other.
    assert.ok(error <= 5e-2 * Math.abs(loss!) + 8e-3, `step ${i + 1}: ${steps[i]!.loss} ${loss}`);
  }
  const tensors = await readTensors(outputDir);
  for (const [name, { dtype }] of tensors) assert.equal(dtype, "BF16", name);
  const final = await readTensors(fixture("model", "llama-gqa", "trajectory.safetensors"));
  let error = 0;
  let size = 0;
  for (const [name, { values }] of final) {
    error += distance(values, tensors.get(name)!.values) ** 2;
    size += values.reduce((sum, value) => sum + value ** 2, 0);
  }
  // A bf16 weight is within 2^-9 of its f32 master; the rest is the bf16 gradient.
  assert.ok(
    Math.sqrt(error / size) < 1e-2,
    `weights off by ${Math.sqrt(error / size)} of their norm`,
  );
  assert.equal(configOf(outputDir).dtype, "bfloat16");
});

function configOf(folder: string): Record<string, unknown> {
  return JSON.parse(readFileSync(path.join(folder, "config.json"), "utf8"));
}

test("output_dir is a complete model directory whose config names its dtype", async (t) => {
  const outputDir = temporaryFolder(t);
  await runRecipe({ ...trajectory({ maxSteps: 1 }), outputDir });
  assert.deepEqual(readdirSync(outputDir).sort(), [
    "README.md",
    "all_results.json",
    "config.json",
    "generation_config.json",
    "metrics.jsonl",
    "model.safetensors",
    "train_results.json",
    "trainer_state.json",
  ]);
  assert.deepEqual(configOf(outputDir), { ...configOf(gqaModel), dtype: "float32" });
});

for (const [bf16, saveDtype, stored] of [
  [false, "bfloat16", "BF16"],
  [true, "float32", "F32"],
] as const) {
  test(`save_dtype ${saveDtype} wins over bf16: ${bf16}, in weights and config`, async (t) => {
    const outputDir = temporaryFolder(t);
    await runRecipe({ ...trajectory({ maxSteps: 2, bf16, saveDtype }), outputDir });
    const tensors = await readTensors(outputDir);
    for (const [name, { dtype }] of tensors) assert.equal(dtype, stored, name);
    assert.equal(configOf(outputDir).dtype, saveDtype);
    if (stored === "F32") {
      // The masters are saved, not the bf16 weights: their lower halves are in use.
      const bits = new Uint32Array(tensors.get("model.embed_tokens.weight")!.values.buffer);
      assert.ok(bits.some((word) => (word & 0xffff) !== 0));
    }
  });
}
