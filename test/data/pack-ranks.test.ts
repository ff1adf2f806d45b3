import assert from "node:assert/strict";
import { test } from "node:test";
import { random32 } from "#src/data/order.js";
import { packLengths } from "#src/data/pack.js";
import { packRanks } from "#src/data/pack-ranks.js";
import { dataError } from "./support.js";

/** Lengths of a random step: short and long examples, many alike, now and then one that fills a batch. */
function* randomSteps(rounds: number): Generator<{ lengths: number[]; maxTokens: number }> {
  const next = random32(6, 1);
  const below = (bound: number) => next() % bound;
  for (let round = 0; round < rounds; round++) {
    const maxTokens = 20 + below(400);
    const most = 1 + below(maxTokens);
    const lengths = Array.from({ length: below(40) }, () => {
      if (below(10) === 0) return maxTokens;
      return below(4) === 0 ? most : 1 + below(most);
    });
    yield { lengths, maxTokens };
  }
}

const rankCounts = [1, 2, 3, 4, 5, 8, 64];
const load = (members: readonly number[], lengths: readonly number[]) =>
  members.reduce((sum, i) => sum + lengths[i]!, 0);

test("packRanks: every example stands in one slot of one rank, and no slot exceeds the limit", () => {
  for (const { lengths, maxTokens } of randomSteps(300)) {
    for (const ranks of rankCounts) {
      const planned = packRanks(lengths, { maxTokens, ranks });
      const members = planned.flat(2).sort((a, b) => a - b);
      assert.deepEqual(
        members,
        lengths.map((_, i) => i),
      );
      for (const slot of planned.flat()) {
        assert.ok(load(slot, lengths) <= maxTokens);
        assert.deepEqual(
          slot,
          [...slot].sort((a, b) => a - b),
          "data order inside a slot",
        );
      }
    }
  }
});

test("packRanks: all ranks have the same number of slots, and none more than the batches need", () => {
  for (const { lengths, maxTokens } of randomSteps(300)) {
    const batches = packLengths(lengths, { maxTokens }).length;
    for (const ranks of rankCounts) {
      const planned = packRanks(lengths, { maxTokens, ranks });
      assert.equal(planned.length, ranks);
      for (const slots of planned) assert.equal(slots.length, Math.ceil(batches / ranks));
    }
  }
});

test("packRanks: one rank gets the batches of packLengths, in their order", () => {
  for (const { lengths, maxTokens } of randomSteps(300)) {
    assert.deepEqual(packRanks(lengths, { maxTokens, ranks: 1 }), [
      packLengths(lengths, { maxTokens }),
    ]);
  }
});

test("packRanks: the plan is a function of the lengths, however they are held", () => {
  for (const { lengths, maxTokens } of randomSteps(50)) {
    const options = { maxTokens, ranks: 4 };
    assert.deepEqual(
      packRanks(Int32Array.from(lengths), options),
      packRanks([...lengths], options),
    );
  }
});

test("packRanks: the ranks of a slot differ by no more than the longest example", () => {
  let dealt = 0;
  for (const { lengths, maxTokens } of randomSteps(300)) {
    for (const ranks of rankCounts.slice(1)) {
      const planned = packRanks(lengths, { maxTokens, ranks });
      const loads = planned.flat().map((slot) => load(slot, lengths));
      const spread = Math.max(0, ...loads) - Math.min(...loads);
      // Least loaded first: a bin is at most one example above another. The batches of the way out are not.
      const total = lengths.reduce((sum, length) => sum + length, 0);
      if (total > 0.5 * maxTokens * loads.length) continue;
      assert.ok(spread <= Math.max(0, ...lengths), `${loads} of ${lengths}`);
      dealt++;
    }
  }
  assert.ok(dealt > 500, `only ${dealt} steps were loose enough to say`);
});

test("packRanks: a step of equal examples is shared out evenly over ranks and slots", () => {
  const planned = packRanks(Array(12).fill(10), { maxTokens: 30, ranks: 2 });
  assert.deepEqual(
    planned.map((slots) => slots.map((slot) => slot.length)),
    [
      [3, 3],
      [3, 3],
    ],
  );
  // One batch of one rank keeps all four busy.
  const four = packRanks(Array(12).fill(10), { maxTokens: 1000, ranks: 4 });
  assert.deepEqual(
    four.map((slots) => slots.map((slot) => slot.length)),
    [[3], [3], [3], [3]],
  );
});

test("packRanks: fewer examples than ranks leave the last ones empty slots", () => {
  assert.deepEqual(packRanks([5, 9], { maxTokens: 10, ranks: 4 }), [[[1]], [[0]], [[]], [[]]]);
  assert.deepEqual(packRanks([], { maxTokens: 10, ranks: 2 }), [[], []]);
});

test("packRanks: slots go to and fro over the ranks, so that no rank always has the longest", () => {
  const planned = packRanks([10, 9, 8, 7], { maxTokens: 10, ranks: 2 });
  assert.deepEqual(planned, [
    [[0], [3]],
    [[1], [2]],
  ]);
});

test("packRanks: where dealing exceeds the limit the batches of packLengths are kept", () => {
  // Two bins of 12 hold {6, 6} and {4, 4, 4}; dealt least loaded first, a bin gets 6 + 4 + 4.
  assert.deepEqual(packRanks([6, 6, 4, 4, 4], { maxTokens: 12, ranks: 2 }), [
    [[0, 1]],
    [[2, 3, 4]],
  ]);
});

test("packRanks: an example that no micro-batch holds is named, whatever the ranks", () => {
  const where = (i: number) => `pairs.jsonl:${i + 1}`;
  assert.throws(
    () => packRanks([3, 50], { maxTokens: 20, ranks: 3, where }),
    dataError(/^pairs\.jsonl:2: this example alone needs 50 tokens.*at most 20/),
  );
});
