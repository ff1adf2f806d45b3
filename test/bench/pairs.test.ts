import assert from "node:assert/strict";
import { test } from "node:test";
import { sharedPrefix } from "#src/data/pack.js";
import { type BenchModel, benchModule } from "./modules.js";

const { makePairs, countTokens, tokenizedRow, SIGMA } = await benchModule("pairs.mjs");
const { models } = await benchModule("models.mjs");
const model = models["135m"]!;

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

test("bench pairs: lengths are lognormal with the stated mean and sigma", () => {
  // A wide range and few token ids, so that the cuts at both ends change nothing.
  const wide = (m: number) => ({ mean: m, least: 2, most: 1e5 });
  const loose: BenchModel = { ...model, prompt: wide(180), response: wide(220) };
  const count = 4000;
  const pairs = makePairs(loose, count, 1);
  const cases = [
    { lengths: pairs.map((p) => p.prompt.length), expected: 180 },
    { lengths: pairs.flatMap((p) => [p.chosen.length, p.rejected.length]), expected: 220 },
  ];
  // A lognormal length has the relative deviation sqrt(exp(σ²) − 1) = 0.80; four standard errors of a mean.
  const tolerance = (4 * Math.sqrt(Math.exp(SIGMA ** 2) - 1)) / Math.sqrt(count);
  for (const { lengths, expected } of cases) {
    assert.ok(Math.abs(mean(lengths) / expected - 1) < tolerance, `mean ${mean(lengths)}`);
    const logs = lengths.map(Math.log);
    const sigma = Math.sqrt(mean(logs.map((x) => (x - mean(logs)) ** 2)));
    assert.ok(Math.abs(sigma - 0.7) < 0.03, `sigma ${sigma}`); // 4 · 0.7/√(2 · 4000)
  }
});

test("bench pairs: lengths keep to their limits, BOS opens the prompt, EOS ends each response", () => {
  for (const shape of Object.values(models)) {
    const { prompt: p, response: r, vocabSize, maxLength } = shape;
    for (const { prompt, chosen, rejected } of makePairs(shape, 300, 3)) {
      assert.ok(prompt.length >= p.least && prompt.length <= p.most, shape.name);
      assert.equal(prompt[0], 1);
      assert.ok(prompt.slice(1).every((id) => id >= 3 && id < vocabSize));
      for (const response of [chosen, rejected]) {
        assert.ok(response.length >= r.least && response.length <= r.most, shape.name);
        assert.equal(response.at(-1), 2);
        assert.ok(response.slice(0, -1).every((id) => id >= 3 && id < vocabSize));
        assert.ok(prompt.length + response.length <= maxLength, "nothing is truncated");
      }
    }
  }
});

test("bench pairs: a seed gives the same pairs again, another seed others", () => {
  const tiny = models.tiny!;
  assert.deepEqual(makePairs(tiny, 5, 11), makePairs(tiny, 5, 11));
  assert.notDeepEqual(makePairs(tiny, 5, 11), makePairs(tiny, 5, 12));
});

test("bench pairs: the trainer's row shares the prompt and scores the responses", () => {
  const pair = { prompt: [1, 7, 8], chosen: [9, 2], rejected: [10, 11, 2] };
  const row = tokenizedRow(pair);
  assert.deepEqual(row.chosen_input_ids, [1, 7, 8, 9, 2]);
  assert.deepEqual(row.chosen_labels, [-100, -100, -100, 9, 2]);
  assert.deepEqual(row.rejected_labels, [-100, -100, -100, 10, 11, 2]);
  const sequence = (side: string) => ({
    ids: Int32Array.from(row[`${side}_input_ids`]!),
    labels: Int32Array.from(row[`${side}_labels`]!),
  });
  assert.equal(sharedPrefix({ chosen: sequence("chosen"), rejected: sequence("rejected") }), 3);
  assert.deepEqual(countTokens([pair, pair]), { pairs: 2, real: 22, computed: 16, scored: 10 });
});
