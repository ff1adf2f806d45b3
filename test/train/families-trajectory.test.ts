import assert from "node:assert/strict";
import { test } from "node:test";
import { curveRecipe, families } from "../model/families.js";
import { readTensors, runRecipe, temporaryFolder } from "./support.js";

for (const family of families) {
  for (const [name, curve] of Object.entries(family.expected.curves)) {
    test(`${family.name}: ten f32 steps of ${name} follow transformers in float64`, async (t) => {
      const model = family.model(t);
      const outputDir = temporaryFolder(t);
      const recipe = curveRecipe(family, curve, model);
      const { steps } = await runRecipe({ ...recipe, outputDir });
      assert.equal(steps.length, curve.steps.length);
      for (const [i, { step, pairs: _, ...metrics }] of curve.steps.entries()) {
        const got = steps[i]!;
        assert.equal(got.step, step);
        if (name === "sigmoid") {
          const { max_grad_norm } = curve.recipe as { max_grad_norm: number };
          assert.ok(got.grad_norm! > 4 * max_grad_norm, `step ${step} clips`);
        }
        for (const [metric, value] of Object.entries(metrics)) {
          // The promise for the loss is 1e-4 relative + 1e-5 absolute; float32 PyTorch keeps to this, too.
          const tolerance = metric === "grad_norm" ? 1e-4 * value : 1e-5 * Math.abs(value) + 1e-6;
          const error = Math.abs(got[metric]! - value);
          assert.ok(error <= tolerance, `step ${step} ${metric}: ${got[metric]}, not ${value}`);
        }
      }

      const before = await readTensors(model);
      const after = await readTensors(outputDir);
      const wanted = await readTensors(family.tensors);
      assert.deepEqual([...after.keys()].sort(), Object.keys(curve.change_norms).sort());
      let total = 0;
      for (const [tensor, norm] of Object.entries(curve.change_norms)) {
        const { values: now } = after.get(tensor)!;
        const was = before.get(tensor)!.values;
        const changes = now.map((value, j) => value - was[j]!);
        const found = Math.hypot(...changes);
        assert.ok(
          Math.abs(found - norm) <= 1e-3 * norm,
          `${tensor}: moved by ${found}, not ${norm}`,
        );
        if (!curve.scales) continue;
        const units = wanted.get(`${name}.${tensor}`)!.values;
        const error = Math.hypot(...changes.map((d, j) => d - units[j]! * curve.scales![tensor]!));
        total += error ** 2;
      }
      // The promise is 5e-3. The least of the mistakes in the fixture's table moves them by 2e-2.
      const error = Math.sqrt(total);
      assert.ok(error <= 1e-3 * curve.change_norm, `weights: off by ${error / curve.change_norm}`);
    });
  }
}
