import assert from "node:assert/strict";
import { test } from "node:test";
import { random32 } from "#src/data/order.js";
import { packLengths, packPairs, packSequences, pairTokens, sharedPrefix } from "#src/data/pack.js";
import type { PackedBatch, TokenizedPair, TokenizedSequence } from "#src/data/types.js";
import { dataError } from "./support.js";

/** A sequence whose tokens from `first` on are scored, less those in `except`. */
function sequence(ids: readonly number[], first: number, except: readonly number[] = []) {
  const labels = ids.map((id, i) => (i < first || except.includes(i) ? -100 : id));
  return { ids: Int32Array.from(ids), labels: Int32Array.from(labels) };
}

const pair = (chosen: TokenizedSequence, rejected: TokenizedSequence): TokenizedPair => ({
  chosen,
  rejected,
});

/** What a scored token is predicted from, and the token: one string per scored token. */
function expectedPredictions({ ids, labels }: TokenizedSequence): string[] {
  const out: string[] = [];
  for (let i = 1; i < labels.length; i++) {
    if (labels[i] !== -100) out.push(`${Array.from(ids.subarray(0, i)).join(" ")} > ${labels[i]}`);
  }
  return out;
}

/** The rows that row `t` attends to, in the order of their positions. */
function visibleRows({ segments }: PackedBatch, t: number): number[] {
  for (let s = 0; s < segments.length; s += 4) {
    const [start, end, prefixStart, prefixEnd] = segments.subarray(s, s + 4);
    if (t < start! || t >= end!) continue;
    const rows: number[] = [];
    for (let row = prefixStart!; row < prefixEnd!; row++) rows.push(row);
    for (let row = start!; row <= t; row++) rows.push(row);
    return rows;
  }
  return assert.fail(`row ${t} is in no segment`);
}

/** The same strings, read back from a batch through its segments and positions. */
function packedPredictions(batch: PackedBatch, response: number): string[] {
  const [begin, end] = batch.responses.subarray(3 * response, 3 * response + 2);
  const out: string[] = [];
  for (let entry = begin!; entry < end!; entry++) {
    const rows = visibleRows(batch, batch.scoredRows[entry]!);
    assert.deepEqual(
      rows.map((row) => batch.positions[row]),
      rows.map((_, i) => i),
      "positions count the visible tokens",
    );
    out.push(`${rows.map((row) => batch.tokens[row]).join(" ")} > ${batch.scoredLabels[entry]}`);
  }
  return out;
}

/** Everything a batch promises about itself. */
function checkBatch(batch: PackedBatch, maxTokens: number): void {
  const T = batch.tokens.length;
  const N = batch.scoredRows.length;
  assert.ok(T <= maxTokens);
  assert.equal(batch.positions.length, T);
  assert.equal(batch.scoredLabels.length, N);
  let end = 0;
  for (let s = 0; s < batch.segments.length; s += 4) {
    const [start, stop, prefixStart, prefixEnd] = batch.segments.subarray(s, s + 4);
    assert.equal(start, end, "segments cover the rows without a gap");
    assert.ok(stop! > start!, "no segment is empty");
    assert.ok(prefixStart! <= prefixEnd! && prefixEnd! <= start!);
    end = stop!;
  }
  assert.equal(end, T);
  let responseEnd = 0;
  for (let r = 0; r < batch.responses.length; r += 3) {
    const [begin, stop, side] = batch.responses.subarray(r, r + 3);
    assert.equal(begin, responseEnd);
    assert.ok(stop! > begin!, "every response has a scored token");
    assert.ok(side === 0 || side === 1);
    responseEnd = stop!;
  }
  assert.equal(responseEnd, N);
  const sources = Array.from({ length: T }, () => [] as number[]);
  for (const [entry, row] of batch.scoredRows.entries()) sources[row]!.push(entry);
  for (const [row, entries] of sources.entries()) {
    assert.ok(entries.length <= 2);
    assert.deepEqual(Array.from(batch.rowSources.subarray(2 * row, 2 * row + 2)), [
      entries[0] ?? -1,
      entries[1] ?? -1,
    ]);
  }
  const byToken = new Map<number, number[]>();
  for (const [row, token] of batch.tokens.entries()) {
    byToken.set(token, [...(byToken.get(token) ?? []), row]);
  }
  const unique = [...byToken.keys()].sort((a, b) => a - b);
  assert.deepEqual(Array.from(batch.uniqueTokens), unique);
  assert.equal(batch.tokenOffsets.length, unique.length + 1);
  assert.equal(batch.tokenRows.length, T);
  unique.forEach((token, u) => {
    const rows = batch.tokenRows.subarray(batch.tokenOffsets[u], batch.tokenOffsets[u + 1]);
    assert.deepEqual(Array.from(rows), byToken.get(token));
  });
  for (const value of Object.values(batch)) {
    assert.ok(value instanceof Int32Array || typeof value === "number");
  }
}

test("pack: the layout of one pair with a shared prompt", () => {
  const batch = packPairs(
    [pair(sequence([1, 10, 11, 20, 2], 3), sequence([1, 10, 11, 30, 31, 2], 3))],
    {
      maxTokens: 100,
      prefixSharing: true,
    },
  )[0];
  assert.ok(batch !== undefined);
  assert.deepEqual(Array.from(batch.tokens), [1, 10, 11, 20, 2, 30, 31, 2]);
  assert.deepEqual(Array.from(batch.positions), [0, 1, 2, 3, 4, 3, 4, 5]);
  assert.deepEqual(Array.from(batch.segments), [0, 3, 0, 0, 3, 5, 0, 3, 5, 8, 0, 3]);
  assert.deepEqual(Array.from(batch.scoredRows), [2, 3, 2, 5, 6]); // row 2 is gathered twice
  assert.deepEqual(Array.from(batch.scoredLabels), [20, 2, 30, 31, 2]);
  assert.deepEqual(Array.from(batch.responses), [0, 2, 0, 2, 5, 1]);
  assert.deepEqual(Array.from(batch.rowSources.subarray(4, 8)), [0, 2, 1, -1]);
  assert.deepEqual(Array.from(batch.uniqueTokens), [1, 2, 10, 11, 20, 30, 31]);
  assert.equal(batch.realTokens, 11);
  assert.equal(batch.examples, 1);
  assert.deepEqual(Array.from(batch.members), [0]);
});

test("pack: without prefix sharing the same pair is two plain sequences", () => {
  const batch = packPairs([pair(sequence([1, 10, 20, 2], 2), sequence([1, 10, 30], 2))], {
    maxTokens: 7,
    prefixSharing: false,
  })[0];
  assert.ok(batch !== undefined);
  assert.deepEqual(Array.from(batch.tokens), [1, 10, 20, 2, 1, 10, 30]);
  assert.deepEqual(Array.from(batch.positions), [0, 1, 2, 3, 0, 1, 2]);
  assert.deepEqual(Array.from(batch.segments), [0, 4, 0, 0, 4, 7, 4, 4]);
  assert.deepEqual(Array.from(batch.scoredRows), [1, 2, 5]);
  assert.equal(batch.realTokens, 7);
});

test("pack: prompts that differ by a merge share what is common, the rest opens the branch", () => {
  const p = pair(sequence([1, 10, 77, 20], 2), sequence([1, 10, 11, 30], 3));
  assert.equal(sharedPrefix(p), 2);
  assert.equal(pairTokens(p, true), 6);
  assert.equal(pairTokens(p, false), 8);
  const batch = packPairs([p], { maxTokens: 6, prefixSharing: true })[0];
  assert.ok(batch !== undefined);
  assert.deepEqual(Array.from(batch.tokens), [1, 10, 77, 20, 11, 30]);
  assert.deepEqual(Array.from(batch.scoredRows), [1, 2, 4]);
});

test("pack: equal responses are not shared, only prompts are", () => {
  const same = sequence([1, 10, 20, 21], 2);
  assert.equal(sharedPrefix(pair(same, same)), 2);
});

test("pack: a label at index 0 is not scored and does not end the prompt", () => {
  const s = { ids: Int32Array.of(5, 6, 7), labels: Int32Array.of(5, 6, 7) };
  const batch = packSequences([s], { maxTokens: 9 })[0];
  assert.deepEqual(Array.from(batch?.scoredLabels ?? []), [6, 7]);
  assert.equal(sharedPrefix(pair(s, s)), 1);
});

test("pack: nothing in, nothing out", () => {
  assert.deepEqual(packPairs([], { maxTokens: 5, prefixSharing: true }), []);
  assert.deepEqual(packLengths([], { maxTokens: 5 }), []);
});

test("pack: batches keep the data's order and their number is small", () => {
  assert.deepEqual(packLengths([4, 6, 5, 5], { maxTokens: 10 }), [
    [0, 1],
    [2, 3],
  ]);
  assert.deepEqual(packLengths([3, 3, 3, 7, 7, 7], { maxTokens: 10 }), [
    [0, 3],
    [1, 4],
    [2, 5],
  ]);
  // First come, first served would need four batches here.
  assert.equal(packLengths([2, 6, 8, 4, 5, 5], { maxTokens: 10 }).length, 3);
});

test("pack: an example that cannot fit is named, with the key to raise", () => {
  const long = pair(sequence([1, 2, 3, 4, 5], 2), sequence([1, 2, 3], 2));
  const short = pair(sequence([1, 2], 1), sequence([1, 3], 1));
  assert.throws(
    () =>
      packPairs([short, long], {
        maxTokens: 5,
        prefixSharing: true,
        where: (i) => `train.jsonl:${i + 1}`,
      }),
    dataError(
      /^train\.jsonl:2: this example alone needs 6 tokens, and a micro-batch holds at most 5$/,
      /max_tokens_per_micro_batch to 6 or more/,
    ),
  );
  assert.throws(
    () => packSequences([sequence([1, 2, 3], 1)], { maxTokens: 2 }),
    dataError(/^sequence 0: this example alone needs 3 tokens/),
  );
});

test("pack: an example without a token to score is refused", () => {
  const empty = sequence([1, 2, 3], 3);
  const good = sequence([1, 2, 3], 1);
  assert.throws(
    () => packPairs([pair(good, good), pair(good, empty)], { maxTokens: 50, prefixSharing: true }),
    dataError(/^pair 1: rejected: expected at least one token to score, found none$/, /label 0/),
  );
  assert.throws(
    () => packSequences([{ ids: Int32Array.of(5), labels: Int32Array.of(5) }], { maxTokens: 9 }),
    dataError(/^sequence 0: expected at least one token to score/),
  );
});

/** Random pairs: shared prompts, prompts that part early, labels with holes, single tokens. */
function randomPairs(next: () => number): TokenizedPair[] {
  const int = (n: number): number => next() % n;
  const ids = (n: number): number[] => Array.from({ length: n }, () => int(12));
  return Array.from({ length: 1 + int(12) }, () => {
    const prompt = ids(int(9));
    const side = (): TokenizedSequence => {
      const own =
        int(3) === 0 ? [...prompt.slice(0, int(prompt.length + 1)), ...ids(int(3))] : prompt;
      const response = ids(1 + int(8));
      const all = [...own, ...response];
      if (all.length === 1) all.push(int(12));
      const holes = Array.from({ length: int(4) }, () => int(all.length - 1));
      return sequence(all, own.length, holes); // the last token is always scored
    };
    return pair(side(), side());
  });
}

test("pack: any pairs read back from their batches are the separate sequences (random)", () => {
  const seed = Date.now() % 2 ** 31;
  console.log(`seed ${seed}`);
  for (let round = 0; round < 400; round++) {
    const next = random32(seed, round);
    const pairs = randomPairs(next);
    for (const prefixSharing of [true, false]) {
      const lengths = pairs.map((p) => pairTokens(p, prefixSharing));
      const maxTokens = Math.max(...lengths) + (next() % 40);
      const plan = packLengths(lengths, { maxTokens });
      const batches = packPairs(pairs, { maxTokens, prefixSharing });
      assert.equal(batches.length, plan.length);
      assert.deepEqual(
        plan.flat().sort((a, b) => a - b),
        pairs.map((_, i) => i),
        "every pair is packed once",
      );
      for (const [b, batch] of batches.entries()) {
        checkBatch(batch, maxTokens);
        const members = plan[b]!;
        assert.deepEqual(
          [...members].sort((x, y) => x - y),
          members,
        );
        const sequences = members.flatMap((i) => [pairs[i]!.chosen, pairs[i]!.rejected]);
        assert.equal(batch.examples, members.length);
        assert.deepEqual(Array.from(batch.members), members);
        assert.equal(batch.responses.length, 3 * sequences.length);
        assert.equal(
          batch.realTokens,
          sequences.reduce((sum, s) => sum + s.ids.length, 0),
        );
        assert.equal(
          batch.tokens.length,
          members.reduce((sum, i) => sum + lengths[i]!, 0),
        );
        for (const [r, s] of sequences.entries()) {
          assert.equal(batch.responses[3 * r + 2], r % 2, "chosen first");
          assert.deepEqual(packedPredictions(batch, r), expectedPredictions(s));
        }
      }
      assert.deepEqual(packPairs(pairs, { maxTokens, prefixSharing }), batches);
    }
    const sequences = pairs.map((p) => p.chosen);
    const maxTokens = Math.max(...sequences.map((s) => s.ids.length)) + (next() % 20);
    const plan = packLengths(
      sequences.map((s) => s.ids.length),
      { maxTokens },
    );
    const batches = packSequences(sequences, { maxTokens });
    for (const [b, batch] of batches.entries()) {
      checkBatch(batch, maxTokens);
      assert.deepEqual(Array.from(batch.members), plan[b]);
      for (const [r, i] of plan[b]!.entries()) {
        assert.deepEqual(packedPredictions(batch, r), expectedPredictions(sequences[i]!));
        assert.equal(batch.responses[3 * r + 2], 0);
      }
    }
  }
});
