import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { defineConfig } from "#src/config/load.js";
import { createOrder } from "#src/data/order.js";
import { packRanks } from "#src/data/pack-ranks.js";
import { readModelShape } from "#src/model/index.js";
import type { ZeroStage } from "#src/parallel/layout.js";
import { stepVolume } from "#src/parallel/volume.js";
import { loadExamples } from "#src/train/examples.js";
import { planRun, volumeOptions } from "#src/train/plan.js";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import { gqaModel, temporaryFolder, trajectory } from "../train/support.js";

type Counters = Record<string, { calls: number; bytes: number }>;

const shape = readModelShape(await readConfigFile(gqaModel));
const data = await loadExamples(defineConfig(trajectory({})).config, shape.vocabSize, {
  modelDir: gqaModel,
  baseDir: ".",
  needTest: false,
});
/** Of 14, so that the second step of an epoch has 2 pairs: ranks with an empty micro-batch. */
const PAIRS = 12;
/** Tokens that one micro-batch needs at least. */
const LONGEST = Math.max(...data.train.computedTokens);

/** What each rank has to send in the steps 0 … 3, by the plan. */
function analytic(size: number, stage: ZeroStage, bf16: boolean, maxTokensPerMicroBatch: number) {
  const { config } = defineConfig(trajectory({ zeroStage: stage, bf16, maxTokensPerMicroBatch }));
  const ranks = { size, localSize: size };
  const options = { ranks, examplesPerStep: PAIRS };
  const plan = planRun(config, shape, data.train, data.test, {}, options);
  const order = createOrder({ count: 14, perStep: PAIRS, shuffle: false, seed: config.seed });
  const steps = Array.from({ length: 4 }, (_, step) => {
    const lengths = order(step).map((i) => data.train.computedTokens[i]!);
    const packed = packRanks(lengths, { maxTokens: plan.limits.tokens, ranks: size });
    const known = volumeOptions(config, shape, plan);
    return { ...known, slots: packed[0]!.length, responses: 2 * lengths.length };
  });
  return { plan, steps };
}

const stages: ZeroStage[] = [0, 1, 2, 3];
const cases = [2, 3, 4].flatMap((size) =>
  [2048, LONGEST].map((maxTokens) => ({
    size,
    maxTokens,
    bf16: (size === 3) === maxTokens < 2048,
  })),
);

for (const { size, maxTokens, bf16 } of cases) {
  const name = `${size} ranks, at most ${maxTokens} tokens, ${bf16 ? "bf16" : "f32"}`;
  test(`volume: training sends what the plan says, to the byte: ${name}`, {
    skip: noMpi,
  }, async (t) => {
    for (const stage of stages) {
      const { plan, steps } = analytic(size, stage, bf16, maxTokens);
      const slots = steps.map((step) => step.slots);
      // The two splits differ in how often stages 2 and 3 exchange.
      if (maxTokens === LONGEST) assert.ok(plan.slots.most > 1, String(slots));
      else assert.equal(plan.slots.most, 1);
      const program = path.join(root, "dist-test", "parallel", "volume-rank.js");
      const args = [String(stage), String(bf16), String(maxTokens), String(PAIRS)];
      const run = await runRanks<Counters[]>(size, program, [...args, temporaryFolder(t)]);
      assert.equal(run.code, 0, run.stderr);
      for (const [rank, counted] of run.reports.entries()) {
        assert.equal(counted?.length, 4);
        for (let step = 1; step < 4; step++) {
          const expected = Object.fromEntries(
            stepVolume(steps[step]!, rank).map(({ op, calls, bytes }) => [op, { calls, bytes }]),
          );
          const got = difference(counted![step]!, counted![step - 1]!);
          assert.deepEqual(got, expected, `stage ${stage}, rank ${rank}, step ${step}: ${slots}`);
        }
      }
    }
  });
}

/** Of what is sent in steps: other exchanges of a run are there in both, and the same. */
function difference(after: Counters, before: Counters): Counters {
  const changed = Object.entries(after).map(([op, { calls, bytes }]) => {
    const was = before[op] ?? { calls: 0, bytes: 0 };
    return [op, { calls: calls - was.calls, bytes: bytes - was.bytes }] as const;
  });
  return Object.fromEntries(changed.filter(([, { calls }]) => calls > 0));
}
