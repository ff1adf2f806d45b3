import assert from "node:assert/strict";
import { test } from "node:test";
import { benchModule } from "./modules.js";

const { median, spread, showSpread } = await benchModule("statistics.mjs");
const { summarize } = await benchModule("report.mjs");
const { models } = await benchModule("models.mjs");

test("bench statistics: median of odd and even counts, and the spread shown", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(showSpread(spread([1.5, 1.25, 2])), "1.50 (1.25-2.00)");
  assert.throws(() => median([]), /median of no values/);
});

test("bench report: ratios are taken round by round, shares from the profile", () => {
  const run = (stepSeconds: number[]) => ({
    stepSeconds,
    ...{ chosenLogp: -1, peakRss: 2 ** 30, loadBefore: 0, loadAfter: 1, others: 0 },
  });
  const own = (seconds: number[]) => ({
    ...run(seconds),
    profile: [
      { op: "matmul", callsPerStep: 4, secondsPerStep: 0.5 },
      { op: "matmul_add", callsPerStep: 2, secondsPerStep: 0.25 },
      { op: "adamw", callsPerStep: 1, secondsPerStep: 0.25 },
    ],
    matmulFlopsPerStep: 3e9,
    matmulRoofSecondsPerStep: 0.375,
  });
  const pairs = [{ prompt: [1, 3], chosen: [2], rejected: [3, 2] }];
  const runs = { other: [run([2, 2, 2]), run([3, 3, 9])] };
  const result = summarize(models["135m"]!, pairs, [own([1, 1, 1]), own([1, 1, 1])], runs);
  assert.deepEqual(result.peers[0]!.ratio, { median: 2.5, min: 2, max: 3, n: 2 });
  assert.equal(result.own.pairsPerSecond, 8);
  assert.equal(result.own.matmulShare, 0.75);
  assert.equal(result.own.matmulOfRoof, 0.5);
  assert.equal(result.own.matmulRoofGflops, 8);
  assert.deepEqual(
    result.profile.map(({ op, share }) => [op, share]),
    [
      ["matmul", 0.5],
      ["matmul_add", 0.25],
      ["adamw", 0.25],
    ],
  );
});
