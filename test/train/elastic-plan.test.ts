import assert from "node:assert/strict";
import { test } from "node:test";
import { defineConfig } from "#src/config/load.js";
import { keptPlan, rankSettings } from "#src/train/elastic.js";
import type { RunState } from "#src/train/run-checkpoint.js";
import { trajectory } from "./support.js";

const config = defineConfig({ ...trajectory({ zeroStage: 3 }), outputDir: "out" }).config;
assert.equal(config.perDeviceTrainBatchSize * config.gradientAccumulationSteps, 4);

const checkpoint = (state: Partial<RunState>) => ({
  dir: "runs/checkpoint-40",
  state: { examplesPerStep: 8, maxTokens: 640, ...state } as RunState,
  trainerState: "{}",
});
const two = checkpoint({ ranks: 2, examplesPerRank: 4 });

test("a run that starts anew keeps nothing", () => {
  assert.deepEqual(keptPlan(undefined, config, 3), { notices: [] });
});

test("the same number of ranks keeps examples per step and tokens, without a word", () => {
  assert.deepEqual(keptPlan(two, config, 2), { tokens: 640, examplesPerStep: 8, notices: [] });
});

test("another number keeps the examples per step, says so, and plans its tokens anew", () => {
  for (const [ranks, these, planned] of [
    [1, "one process", 4],
    [3, "3 processes", 12],
  ] as const) {
    assert.deepEqual(keptPlan(two, config, ranks), {
      tokens: undefined,
      examplesPerStep: 8,
      notices: [
        "checkpoint-40 was written by 2 processes with 8 examples per optimizer step; " +
          `this run of ${these} keeps them (the recipe alone would make it ${planned})`,
      ],
    });
  }
});

test("what a run has kept it keeps again, on the number of ranks it had and on others", () => {
  const kept = checkpoint({ ranks: 3, examplesPerRank: 4 });
  assert.deepEqual(keptPlan(kept, config, 3), {
    tokens: 640,
    examplesPerStep: 8,
    notices: [
      "checkpoint-40 was written by 3 processes with 8 examples per optimizer step; " +
        "this run of 3 processes keeps them (the recipe alone would make it 12)",
    ],
  });
  // Back to where it came from: the recipe says the same.
  assert.deepEqual(keptPlan(kept, config, 2), {
    tokens: undefined,
    examplesPerStep: 8,
    notices: [],
  });
});

test("a recipe with another share says what a step is: it has to be the checkpoint's, which is checked later", () => {
  const state = checkpoint({ ranks: 2, examplesPerRank: 8, examplesPerStep: 16 });
  assert.deepEqual(keptPlan(state, config, 4), { tokens: undefined, notices: [] });
  assert.deepEqual(keptPlan(state, config, 2), { tokens: 640, notices: [] });
});

test("a checkpoint that says nothing of ranks is one process's", () => {
  const old = checkpoint({ examplesPerStep: 4 });
  assert.deepEqual(keptPlan(old, config, 1), { tokens: 640, examplesPerStep: 4, notices: [] });
  assert.match(
    keptPlan(old, config, 2).notices.join(),
    /written by one process with 4 .*make it 8/,
  );
});

test("what goes into a checkpoint: ranks, their stage, and the recipe's share of each", () => {
  assert.deepEqual(rankSettings(config, 5), { ranks: 5, zeroStage: 3, examplesPerRank: 4 });
});
