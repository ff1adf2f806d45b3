import assert from "node:assert/strict";
import { cpSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { noEmulator } from "../ops/harness/devices.js";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import type { RankTask } from "./rank.js";
import {
  outputOf,
  readTensors,
  runRecipe,
  temporaryFolder,
  trajectory,
  weightBytes,
  withoutTimes,
} from "./support.js";

// Checkpoints of devices with memory of their own, with the optimizer's state on the device or in host memory.
const device = "emulated";
const skip = noMpi || noEmulator;
const program = path.join(root, "dist-test", "train", "rank.js");

for (const bf16 of [false, true]) {
  test(`${device}: state in host memory is saved and read like the device's, by one process and by 2 (bf16: ${bf16})`, {
    skip,
  }, async (t) => {
    const folder = temporaryFolder(t);
    const run = async (name: string, ranks: number, changes: Partial<RecipeInput>) => {
      const recipe = {
        ...trajectory({
          bf16,
          maxSteps: 4,
          saveStrategy: "steps",
          saveSteps: 2,
          perDeviceTrainBatchSize: 4 / ranks,
          gradientAccumulationSteps: 1,
          ...changes,
        }),
        outputDir: path.join(folder, name),
      };
      if (ranks === 1) await runRecipe(recipe, { device, threads: 1 });
      else {
        const file = path.join(folder, `${name}.json`);
        writeFileSync(file, JSON.stringify({ recipe, device } satisfies RankTask));
        const { code, stderr } = await runRanks(ranks, program, [file]);
        assert.equal(code, 0, stderr);
      }
      const { outputDir } = recipe;
      const { records } = outputOf(outputDir);
      return { outputDir, records: withoutTimes(records), weights: weightBytes(outputDir) };
    };
    const offloadOptimizer = "cpu";
    const host = await run("host", 1, { offloadOptimizer });
    const two = await run("two", 2, { offloadOptimizer, zeroStage: 3 });
    for (const [whole, ranks, changes] of [
      [host, 1, { offloadOptimizer }],
      [two, 2, { offloadOptimizer, zeroStage: 3 }],
    ] as const) {
      const from = path.join(whole.outputDir, "checkpoint-2");
      const name = `again-${ranks}`;
      cpSync(whole.outputDir, path.join(folder, name), { recursive: true });
      const again = await run(name, ranks, { ...changes, resumeFromCheckpoint: from });
      assert.deepEqual(again.records, whole.records);
      assert.ok(again.weights.equals(whole.weights));
    }
    // From host memory of 2 ranks to the memory of one device, which then holds and saves the same.
    const last = path.join(two.outputDir, "checkpoint-4");
    const device1 = await run("device", 1, { resumeFromCheckpoint: last });
    assert.ok(device1.weights.equals(two.weights));
    const [final, saved] = await Promise.all([device1.outputDir, last].map(readTensors));
    assert.deepEqual(final, saved);
  });
}
