import assert from "node:assert/strict";
import { test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { type Curve, curveRecipe, families } from "../model/families.js";
import { type MetricRecord, readTensors, runRecipe, temporaryFolder } from "./support.js";

// One recipe, many ways to compute it: neither a window nor loss groups may depend on how pairs are packed.
const ways: Readonly<Record<string, Partial<RecipeInput>>> = {
  "gradient checkpointing": { gradientCheckpointing: true },
  "chosen and rejected as separate sequences": { prefixSharing: false },
  "one or two pairs per micro-batch": { maxTokensPerMicroBatch: 96 },
};
const packedManyWays = ["mistral", "qwen2", "qwen3"];

for (const family of families) {
  const many = packedManyWays.includes(family.name) ? ways : {};
  for (const name of ["simper", "sigmoid"] as const) {
    for (const [way, changes] of Object.entries({ "as the recipe says": {}, ...many })) {
      test(`${family.name}: ten f32 steps of ${name} follow transformers in float64 (${way})`, async (t) => {
        const curve = family.expected.curves[name];
        const model = family.model(t);
        const outputDir = temporaryFolder(t);
        const recipe = curveRecipe(family, curve, model, changes);
        const { steps } = await runRecipe({ ...recipe, outputDir });
        checkSteps(steps, curve);
        const units = await readTensors(family.tensors);
        await checkWeights(model, outputDir, curve, (tensor) => {
          const scale = curve.scales[tensor]!;
          return units.get(`${name}.${tensor}`)!.values.map((unit) => unit * scale);
        });
      });
    }
  }
}

function checkSteps(steps: readonly MetricRecord[], curve: Curve): void {
  assert.equal(steps.length, curve.steps.length);
  const { loss_type, max_grad_norm } = curve.recipe;
  for (const [i, { step, pairs: _, ...metrics }] of curve.steps.entries()) {
    const got = steps[i]!;
    assert.equal(got.step, step);
    if (loss_type === "sigmoid") {
      assert.ok(got.grad_norm! > 4 * (max_grad_norm as number), `step ${step} clips`);
    }
    for (const [metric, value] of Object.entries(metrics)) {
      // The promise for the loss is 1e-4 relative + 1e-5 absolute; measured a hundredth of it.
      const tolerance = metric === "grad_norm" ? 1e-4 * value : 1e-5 * Math.abs(value) + 1e-6;
      const error = Math.abs(got[metric]! - value);
      assert.ok(error <= tolerance, `step ${step} ${metric}: ${got[metric]}, not ${value}`);
    }
  }
}

/** `wanted`: the change of a tensor. */
async function checkWeights(
  model: string,
  outputDir: string,
  curve: Curve,
  wanted: (tensor: string) => Float32Array,
): Promise<void> {
  const before = await readTensors(model);
  const after = await readTensors(outputDir);
  assert.deepEqual([...after.keys()].sort(), Object.keys(curve.change_norms).sort());
  let total = 0;
  for (const [tensor, norm] of Object.entries(curve.change_norms)) {
    const was = before.get(tensor)!.values;
    const changes = after.get(tensor)!.values.map((value, i) => value - was[i]!);
    const found = Math.hypot(...changes);
    // Least exact are the biases of k: softmax hardly sees them, and Adam makes rounding as large as the rest.
    assert.ok(Math.abs(found - norm) <= 2e-3 * norm, `${tensor}: moved by ${found}, not ${norm}`);
    const expected = wanted(tensor);
    total += Math.hypot(...changes.map((d, i) => d - expected[i]!)) ** 2;
  }
  // The promise is 5e-3; measured 4e-5. The least of the mistakes in the fixture's table moves them by 2e-2.
  const error = Math.sqrt(total) / curve.change_norm;
  assert.ok(error <= 2e-4, `weights: off by ${error} of their change`);
}
