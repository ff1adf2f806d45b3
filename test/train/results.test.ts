import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { readModelShape } from "#src/model/index.js";
import { gqaModel, runRecipe, splitFolder, temporaryFolder, trajectory } from "./support.js";

type Metrics = Record<string, number>;

const results = (outputDir: string, name: string): Metrics =>
  JSON.parse(readFileSync(path.join(outputDir, `${name}_results.json`), "utf8"));

const clock = /runtime|per_second/;

function withoutClock(metrics: Metrics): Metrics {
  return Object.fromEntries(Object.entries(metrics).filter(([name]) => !clock.test(name)));
}

test("train_results, eval_results and all_results.json hold what the Trainer's save_metrics would", async (t) => {
  const folder = temporaryFolder(t);
  const outputDir = path.join(folder, "run");
  const data = await splitFolder(folder, 5);
  const evaluation = { doEval: true, evalStrategy: "no", perDeviceEvalBatchSize: 2 } as const;
  const input = trajectory({ datasetMixer: { [data]: 1 }, loggingSteps: 4, ...evaluation });
  const { steps, evals, summary } = await runRecipe({ ...input, outputDir });

  const train = results(outputDir, "train");
  assert.deepEqual(Object.keys(train), [
    "epoch",
    "total_flos",
    "train_loss",
    "train_runtime",
    "train_samples",
    "train_samples_per_second",
    "train_steps_per_second",
  ]);
  assert.equal(train.epoch, 2.5);
  assert.equal(train.train_samples, 14);
  assert.equal(train.train_loss, steps.reduce((sum, { loss }) => sum + loss!, 0) / 10);
  // Two epochs of 14 pairs, and the first 8 of the third.
  const near = (value: number, expected: number) =>
    assert.ok(Math.abs(value / expected - 1) < 1e-9, `${value}, expected ${expected}`);
  near(train.train_samples_per_second! * train.train_runtime!, 36);
  near(train.train_steps_per_second! * train.train_runtime!, 10);
  const shape = readModelShape(await readConfigFile(gqaModel));
  const { hiddenSize: C, intermediateSize: F, headDim: D, numLayers: L, vocabSize: V } = shape;
  const attention = 2 * (shape.numHeads + shape.numKvHeads) * D * C;
  const weights = L * (attention + 3 * C * F + 2 * C) + C + (shape.tiedEmbeddings ? 0 : V * C);
  const tokens = steps.reduce((sum, { num_tokens }) => sum + num_tokens!, 0);
  assert.equal(train.total_flos, 6 * weights * tokens);

  const evaluated = results(outputDir, "eval");
  const { step: _step, ...record } = evals.at(-1)!;
  assert.deepEqual(withoutClock(evaluated), { ...withoutClock(record), eval_samples: 5 });
  near(evaluated.eval_samples_per_second! * evaluated.eval_runtime!, 5);
  near(evaluated.eval_steps_per_second! * evaluated.eval_runtime!, 3); // batches of 2, 2 and 1

  assert.deepEqual(results(outputDir, "all"), { ...evaluated, ...train });
  assert.deepEqual(summary.train, train);
  assert.deepEqual(summary.eval, evaluated);
  const state = JSON.parse(readFileSync(path.join(outputDir, "trainer_state.json"), "utf8"));
  const { train_samples: _samples, ...logged } = train;
  assert.deepEqual(state.log_history.at(-1), { ...logged, step: 10 });
  assert.equal(state.total_flos, train.total_flos);
});

test("a resumed run ends with the same loss, flos and evaluation; its rates count its own steps", async (t) => {
  const folder = temporaryFolder(t);
  const outputDir = path.join(folder, "run");
  const data = await splitFolder(folder, 3);
  const save = { doEval: true, evalSteps: 5, saveStrategy: "steps", saveSteps: 5 } as const;
  const input = {
    ...trajectory({ datasetMixer: { [data]: 1 }, loggingSteps: 3, ...save }),
    outputDir,
  };
  await runRecipe(input);
  const whole = results(outputDir, "all");
  for (const [step, left] of [
    [5, 5],
    [10, 0],
  ] as const) {
    const resumeFromCheckpoint = path.join(outputDir, `checkpoint-${step}`);
    await runRecipe({ ...input, resumeFromCheckpoint });
    const again = results(outputDir, "all");
    assert.deepEqual(withoutClock(again), withoutClock(whole), `resumed after step ${step}`);
    const steps = again.train_steps_per_second! * again.train_runtime!;
    assert.ok(Math.abs(steps - left) < 1e-9, `${steps} steps`);
  }
});

test("without an evaluation no eval_results.json of an earlier run stays", async (t) => {
  const outputDir = temporaryFolder(t);
  writeFileSync(path.join(outputDir, "eval_results.json"), '{"eval_loss": 1}');
  const { summary } = await runRecipe({ ...trajectory({ maxSteps: 1 }), outputDir });
  assert.equal(summary.eval, undefined);
  assert.ok(!existsSync(path.join(outputDir, "eval_results.json")));
  assert.deepEqual(results(outputDir, "all"), results(outputDir, "train"));
});

for (const [evalStrategy, evalDelay, steps] of [
  ["steps", 4, [0, 6, 9, 10]],
  ["epoch", 1.5, [0, 8, 10]],
  ["steps", 100, [0, 10]],
] as const) {
  test(`eval_delay ${evalDelay} with ${evalStrategy}: evaluations after ${steps.join(", ")}`, async (t) => {
    const folder = temporaryFolder(t);
    const data = await splitFolder(folder, 2);
    const evaluation = { doEval: true, evalOnStart: true, evalStrategy, evalSteps: 3, evalDelay };
    const input = trajectory({ datasetMixer: { [data]: 1 }, ...evaluation });
    const { evals } = await runRecipe({ ...input, outputDir: path.join(folder, "run") });
    assert.deepEqual(
      evals.map(({ step }) => step),
      steps,
    );
  });
}
