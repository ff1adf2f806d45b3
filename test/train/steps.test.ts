import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import {
  checkpointSteps,
  gqaModel,
  readTensors,
  runRecipe,
  temporaryFolder,
  trajectory,
} from "./support.js";

// 14 pairs, 4 per step: an epoch is 4 steps.
const stepCases: readonly [Partial<RecipeInput>, number][] = [
  [{ maxSteps: -1, numTrainEpochs: 1 }, 4],
  [{ maxSteps: -1, numTrainEpochs: 2 }, 8],
  [{ maxSteps: -1, numTrainEpochs: 0.5 }, 2],
  [{ maxSteps: -1, numTrainEpochs: 1, gradientAccumulationSteps: 1 }, 7],
  [{ maxSteps: -1, numTrainEpochs: 1, perDeviceTrainBatchSize: 20 }, 1],
  [{ maxSteps: 3, numTrainEpochs: 2 }, 3],
];
for (const [changes, count] of stepCases) {
  const recipe = JSON.stringify(changes).slice(1, -1).replaceAll('"', "");
  test(`${recipe}: ${count} steps over 14 pairs`, async (t) => {
    const { steps, summary } = await runRecipe({
      ...trajectory(changes),
      outputDir: temporaryFolder(t),
    });
    assert.equal(summary.step, count);
    assert.deepEqual(
      steps.map(({ step }) => step),
      Array.from({ length: count }, (_, i) => i + 1),
    );
  });
}

const peak = 0.001;
const total = 10;
/** Rate of a step after `warmup` steps, when `done` steps are behind it. */
const formulas = {
  constant: () => peak,
  constant_with_warmup: () => peak,
  linear: (done: number, warmup: number) => (peak * (total - done)) / (total - warmup),
  cosine: (done: number, warmup: number) =>
    peak * Math.cos(((Math.PI / 2) * (done - warmup)) / (total - warmup)) ** 2,
};
const scheduleCases = [
  ["constant", { warmupRatio: 0.3 }, 0],
  ["constant_with_warmup", { warmupRatio: 0.3 }, 3],
  ["linear", { warmupRatio: 0 }, 0],
  // Rounded up: 0.11 of 10 steps are 2. An explicit number of steps wins over the ratio.
  ["linear", { warmupRatio: 0.11 }, 2],
  ["linear", { warmupRatio: 0.5, warmupSteps: 1 }, 1],
  ["cosine", { warmupRatio: 0.1 }, 1],
  ["cosine", { warmupSteps: 4, warmupRatio: 0 }, 4],
] as const;
for (const [lrSchedulerType, warm, warmup] of scheduleCases) {
  test(`learning_rate: ${lrSchedulerType} with ${JSON.stringify(warm)} is its closed form`, async (t) => {
    const input = trajectory({ lrSchedulerType, learningRate: peak, ...warm });
    const { steps } = await runRecipe({ ...input, outputDir: temporaryFolder(t) });
    for (const { step, learning_rate } of steps) {
      const done = step - 1;
      const rate = done < warmup ? (peak * done) / warmup : formulas[lrSchedulerType](done, warmup);
      assert.ok(Math.abs(learning_rate! - rate) < 1e-15, `step ${step}: ${learning_rate}, ${rate}`);
    }
  });
}

test("the rate that metrics name is the rate that was used: at 0 no weight moves", async (t) => {
  const outputDir = temporaryFolder(t);
  const { steps } = await runRecipe({ ...trajectory({ maxSteps: 1, warmupSteps: 1 }), outputDir });
  assert.equal(steps[0]!.learning_rate, 0);
  const before = await readTensors(gqaModel);
  for (const [name, { values }] of await readTensors(outputDir)) {
    assert.deepEqual(values, before.get(name)!.values, name);
  }
});

test("max_grad_norm 0 never clips, and grad_norm is the norm before clipping", async (t) => {
  const run = async (maxGradNorm: number) => {
    const outputDir = temporaryFolder(t);
    const input = trajectory({
      maxSteps: 2,
      warmupRatio: 0,
      lrSchedulerType: "constant",
      maxGradNorm,
    });
    const { steps } = await runRecipe({ ...input, outputDir });
    return {
      norms: steps.map(({ grad_norm }) => grad_norm),
      tensors: await readTensors(outputDir),
    };
  };
  const [off, huge, tight] = [await run(0), await run(1e6), await run(1e-3)];
  assert.ok(off.norms[0]! > 0.1);
  assert.deepEqual(off.norms, huge.norms);
  assert.equal(tight.norms[0], off.norms[0]);
  const name = "model.norm.weight";
  assert.deepEqual(off.tensors.get(name), huge.tensors.get(name));
  assert.notDeepEqual(off.tensors.get(name), tight.tensors.get(name));
});

const saveCases: readonly [Partial<RecipeInput>, number[]][] = [
  [{ saveStrategy: "no", saveSteps: 1 }, []],
  [{ saveStrategy: "steps", saveSteps: 4 }, [4, 8]],
  [{ saveStrategy: "epoch" }, [4, 8]],
  [{ saveStrategy: "steps", saveSteps: 2, saveTotalLimit: 2 }, [8, 10]],
  [{ saveStrategy: "steps", saveSteps: 3, saveTotalLimit: 1 }, [9]],
  [{ saveStrategy: "steps", saveSteps: 3, saveTotalLimit: 5 }, [3, 6, 9]],
];
for (const [changes, kept] of saveCases) {
  const recipe = JSON.stringify(changes).slice(1, -1).replaceAll('"', "");
  test(`${recipe}: checkpoints ${kept.join(", ") || "none"} are left, and the model`, async (t) => {
    const outputDir = temporaryFolder(t);
    await runRecipe({ ...trajectory(changes), outputDir });
    assert.deepEqual(checkpointSteps(outputDir), kept);
    assert.ok(existsSync(path.join(outputDir, "model.safetensors")));
  });
}
