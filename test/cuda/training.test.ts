import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import type { RecipeInput } from "#src/config/schema.js";
import type { DeviceName } from "#src/native/index.js";
import { makeTinyModel } from "../model/tiny.js";
import { TEST_DEVICES } from "../ops/harness/devices.js";
import { root } from "../support/paths.js";
import {
  type MetricRecord,
  readLines,
  runRecipe,
  temporaryFolder,
  trajectory,
  weightBytes,
  withoutTimes,
  writeLines,
} from "../train/support.js";

// Whole training steps on the CUDA device's kernels, against the CPU device. Head dim 64 takes the kernels for
// tensor cores; grouped heads, shared prompts, two micro-batches and clipping are part of the recipe.
const MODEL = {
  name: "test",
  hiddenSize: 128,
  numLayers: 2,
  numHeads: 2,
  numKvHeads: 1,
  intermediateSize: 192,
  vocabSize: 211, // of the fixture's pairs
  tied: false,
};
const STEPS = 20;

/** How far from the CPU's a loss and a gradient norm may be: |a − b| ≤ relative·|b| + absolute. */
const TOLERANCES = {
  // Sums in another order, carried through twenty updates.
  f32: { loss: [1e-4, 0], gradNorm: [1e-4, 0] },
  // Activations are rounded to 8 bits, in other places where the devices cut their sums elsewhere.
  bf16: { loss: [5e-2, 8e-3], gradNorm: [0.1, 0] },
} as const;

interface BenchModels {
  writeModel(model: typeof MODEL, folder: string): void;
}

const devices = TEST_DEVICES.filter((name) => name !== "cpu");
const skip =
  devices.length > 0 ? false : "no device besides the CPU's is tested: npm run test:emulator";

for (const device of skip === false ? devices : (["emulated"] as const)) {
  for (const dtype of ["f32", "bf16"] as const) {
    test(`${device}: ${STEPS} ${dtype} steps follow the CPU device, twice alike`, {
      skip,
    }, async (t) => {
      const folder = temporaryFolder(t);
      const { writeModel }: BenchModels = await import(
        pathToFileURL(path.join(root, "bench/lib/model-files.mjs")).href
      );
      const modelNameOrPath = path.join(folder, "model");
      writeModel(MODEL, modelNameOrPath);
      const run = async (name: string, on: DeviceName) => {
        const outputDir = path.join(folder, name);
        const changes: Partial<RecipeInput> = {
          modelNameOrPath,
          bf16: dtype === "bf16",
          maxSteps: STEPS,
        };
        return runRecipe({ ...trajectory(changes), outputDir }, { device: on, threads: 2 });
      };
      const expected = await run("cpu", "cpu");
      const first = await run("first", device);
      const second = await run("second", device);

      const tolerance = TOLERANCES[dtype];
      assert.equal(first.steps.length, STEPS);
      for (const [i, got] of first.steps.entries()) {
        const want = expected.steps[i] as MetricRecord;
        near(`step ${i + 1}: loss`, got.loss!, want.loss!, tolerance.loss);
        near(`step ${i + 1}: grad_norm`, got.grad_norm!, want.grad_norm!, tolerance.gradNorm);
      }
      const [begin, end] = [first.steps[0]!.loss!, first.steps[STEPS - 1]!.loss!];
      assert.ok(end < begin, `nothing was learnt: the loss went from ${begin} to ${end}`);

      assert.deepEqual(withoutTimes(second.records), withoutTimes(first.records));
      assert.ok(weightBytes(second.outputDir).equals(weightBytes(first.outputDir)));
    });
  }
}

for (const device of skip === false ? devices : (["emulated"] as const)) {
  for (const lossType of ["SimPER", "sigmoid", "hinge"] as const) {
    test(`${device}: steps with ${lossType} and an SFT term follow the CPU device`, {
      skip,
    }, async (t) => {
      const folder = temporaryFolder(t);
      const changes = { lossType, labelSmoothing: 0.1, sftWeight: 0.3, maxSteps: 4 } as const;
      const run = async (name: string, on: DeviceName) => {
        const outputDir = path.join(folder, name);
        const options = { device: on, threads: 2 };
        return (await runRecipe({ ...trajectory(changes), outputDir }, options)).steps;
      };
      const expected = await run("cpu", "cpu");
      const { loss, gradNorm } = TOLERANCES.f32;
      for (const [i, got] of (await run("other", device)).entries()) {
        const want = expected[i] as MetricRecord;
        near(`step ${i + 1}: loss`, got.loss!, want.loss!, loss);
        near(`step ${i + 1}: sft_loss`, got.sft_loss!, want.sft_loss!, loss);
        near(`step ${i + 1}: grad_norm`, got.grad_norm!, want.grad_norm!, gradNorm);
      }
    });
  }
}

for (const device of skip === false ? devices : (["emulated"] as const)) {
  test(`${device}: a model in training answers as it does on the CPU device, and keeps its best weights`, {
    skip,
  }, async (t) => {
    const folder = temporaryFolder(t);
    const modelNameOrPath = await makeTinyModel(path.join(folder, "model"));
    const data = path.join(folder, "data");
    mkdirSync(data);
    const turn = (role: string, content: string) => ({ role, content });
    const rows = Array.from({ length: 6 }, (_, i) => ({
      chosen: [turn("user", `Say ${i}`), turn("assistant", `It is ${i}.`)],
      rejected: [turn("user", `Say ${i}`), turn("assistant", "No.")],
    }));
    for (const name of ["train", "test"]) writeLines(path.join(data, `${name}.jsonl`), rows);
    const run = async (name: string, on: DeviceName) => {
      const changes: Partial<RecipeInput> = {
        modelNameOrPath,
        datasetMixer: { [data]: 1 },
        datasetSplits: ["train", "test"],
        learningRate: 0.02,
        maxSteps: 4,
        doEval: true,
        evalSteps: 2,
        saveStrategy: "steps",
        saveSteps: 2,
        loadBestModelAtEnd: true,
        generateDuringEval: true,
        generatePrompts: 3,
        generateMaxNewTokens: 5,
      };
      const outputDir = path.join(folder, name);
      const { evals } = await runRecipe({ ...trajectory(changes), outputDir }, { device: on });
      return { evals, samples: readLines(path.join(outputDir, "samples.jsonl")), outputDir };
    };
    const expected = await run("cpu", "cpu");
    const got = await run("other", device);
    assert.deepEqual(got.samples, expected.samples);
    assert.equal(got.samples.length, 6);
    for (const [i, record] of got.evals.entries()) {
      near(`evaluation ${i}`, record.eval_loss!, expected.evals[i]!.eval_loss!, [1e-3, 1e-5]);
    }
    const { step } = got.evals.reduce((a, b) => (b.eval_loss! < a.eval_loss! ? b : a));
    const best = path.join(got.outputDir, `checkpoint-${step}`);
    assert.ok(weightBytes(got.outputDir).equals(weightBytes(best)));
  });
}

function near(
  what: string,
  actual: number,
  expected: number,
  [relative, absolute]: readonly [number, number],
): void {
  const error = Math.abs(actual - expected);
  assert.ok(
    error <= relative * Math.abs(expected) + absolute,
    `${what} is ${actual}, the CPU device's ${expected}`,
  );
}
