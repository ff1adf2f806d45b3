import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "#src/inference/generate.js";
import { readModel } from "#src/inference/model.js";
import { collect } from "../inference/support.js";
import { curveRecipe, families } from "../model/families.js";
import { TEST_DEVICES } from "../ops/harness/devices.js";
import { runRecipe, temporaryFolder } from "../train/support.js";

// Every family on the CUDA device's kernels, against transformers in float64: biases, norms of query and key
// heads, windows and scaled RoPE, in training and with a key/value cache.
const devices = TEST_DEVICES.filter((name) => name !== "cpu");
const skip =
  devices.length > 0 ? false : "no device besides the CPU's is tested: npm run test:emulator";

for (const device of skip === false ? devices : (["emulated"] as const)) {
  for (const family of families) {
    test(`${device}: ${family.name}: ten f32 steps follow transformers in float64`, {
      skip,
    }, async (t) => {
      const curve = family.expected.curves.sigmoid;
      const recipe = curveRecipe(family, curve, family.model(t));
      const { steps } = await runRecipe({ ...recipe, outputDir: temporaryFolder(t) }, { device });
      assert.equal(steps.length, curve.steps.length);
      for (const [i, { step, loss, grad_norm }] of curve.steps.entries()) {
        const got = steps[i]!;
        const error = Math.abs(got.loss! - loss!);
        assert.ok(error <= 1e-4 * Math.abs(loss!) + 1e-5, `step ${step}: ${got.loss}, not ${loss}`);
        const relative = Math.abs(got.grad_norm! / grad_norm! - 1);
        assert.ok(relative < 1e-3, `step ${step}: norm ${got.grad_norm}, not ${grad_norm}`);
      }
    });

    test(`${device}: ${family.name}: greedy answers are those of transformers`, {
      skip,
    }, async (t) => {
      const model = await readModel(family.model(t));
      const { prompt, ids } = family.expected.generate[0]!;
      const [answer] = await collect(generate(model, [prompt], { device, maxNewTokens: 24 }));
      assert.deepEqual(answer, ids);
    });
  }
}
