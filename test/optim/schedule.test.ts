import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import {
  learningRate,
  type ScheduleType,
  scheduleKwargs,
  warmupLength,
} from "#src/optim/schedule.js";
import { root } from "../support/paths.js";

interface Case {
  readonly type: ScheduleType;
  readonly learningRate: number;
  readonly totalSteps: number;
  readonly warmupSteps?: number;
  readonly warmupRatio?: number;
  readonly kwargs?: { min_lr?: number; min_lr_rate?: number; num_cycles?: number };
  readonly rates: readonly number[];
}

const fixture = path.join(root, "test/fixtures/optim/schedules.json");
const { cases } = JSON.parse(readFileSync(fixture, "utf8")) as { cases: Case[] };

for (const { rates, kwargs, ...given } of cases) {
  test(`schedule: every step's rate is transformers': ${JSON.stringify({ ...given, ...kwargs })}`, () => {
    const options = {
      warmupSteps: 0,
      warmupRatio: 0,
      ...given,
      ...scheduleKwargs(kwargs, given.learningRate),
    };
    assert.equal(rates.length, given.totalSteps);
    for (const [i, expected] of rates.entries()) {
      const found = learningRate(options, i + 1);
      // A few roundings of f64 apart: sums and products stand in another order.
      const tolerance = 1e-14 * given.learningRate;
      assert.ok(
        Math.abs(found - expected) <= tolerance,
        `step ${i + 1}: ${found}, not ${expected}`,
      );
    }
  });
}

test("schedule: each of the types we accept has a case", () => {
  const types = new Set(cases.map(({ type }) => type));
  assert.deepEqual([...types].sort(), [
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_with_min_lr",
    "linear",
  ]);
});

test("schedule: warm-up steps win over the ratio, and below 1 they are one", () => {
  const base = { type: "linear", learningRate: 1, totalSteps: 95 } as const;
  assert.equal(warmupLength({ ...base, warmupSteps: 7, warmupRatio: 0.5 }), 7);
  assert.equal(warmupLength({ ...base, warmupSteps: 0, warmupRatio: 0.1 }), 10);
  assert.equal(warmupLength({ ...base, warmupSteps: 0.1, warmupRatio: 0.5 }), 10);
});
