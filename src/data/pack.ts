import { DataError } from "../errors.js";
import { IGNORE, type PackedBatch, type TokenizedPair, type TokenizedSequence } from "./types.js";

/**
 * Packs whole examples into token streams without padding. A pair becomes three adjacent segments:
 *
 *     ┌────────────┬───────────────┬──────────────────┐
 *     │ prompt (P) │ chosen − P    │ rejected − P     │     chosen and rejected see the prompt and
 *     └────────────┴───────────────┴──────────────────┘     themselves, never each other
 *       0 … P−1      P …             P …                    positions
 *
 * P is the longest common prefix of the two unscored beginnings; what remains of a prompt opens its
 * branch. The row P − 1 predicts the first token of both branches, so it may be gathered twice.
 */

/** How examples are packed. */
export interface PackOptions {
  /** Tokens computed at most in one micro-batch. */
  readonly maxTokens: number;
  /** Compute a pair's common prompt once. Without, its two sequences are packed on their own. */
  readonly prefixSharing: boolean;
  /** Names example `i` in an error, e.g. by `file:line`. */
  readonly where?: (i: number) => string;
}

/** Number of tokens before the first scored one. Label 0 is never scored: nothing precedes it. */
function promptLength({ labels }: TokenizedSequence): number {
  for (let i = 1; i < labels.length; i++) if (labels[i] !== IGNORE) return i;
  return labels.length;
}

/** Length P of the prompt that both sides of a pair share. */
export function sharedPrefix({ chosen, rejected }: TokenizedPair): number {
  const longest = Math.min(promptLength(chosen), promptLength(rejected));
  let shared = 0;
  while (shared < longest && chosen.ids[shared] === rejected.ids[shared]) shared += 1;
  return shared;
}

/** Tokens that are computed for a pair. */
export function pairTokens(pair: TokenizedPair, prefixSharing: boolean): number {
  const real = pair.chosen.ids.length + pair.rejected.ids.length;
  return prefixSharing ? real - sharedPrefix(pair) : real;
}

/**
 * Plans micro-batches from lengths alone: which examples go together, so that none exceeds `maxTokens`
 * and their number is small. First-fit decreasing, ties by index [Johnson 1973: at most 11/9 of the
 * optimum, plus one]; batches are ordered by their first example and keep the data order inside.
 *
 * Throws `DataError` when an example alone exceeds `maxTokens`.
 */
export function packLengths(
  lengths: ArrayLike<number>,
  { maxTokens, where = (i) => `example ${i}` }: Pick<PackOptions, "maxTokens" | "where">,
): number[][] {
  const length = (i: number): number => lengths[i] as number;
  const descending = Array.from(lengths, (_, i) => i).sort(
    (a, b) => length(b) - length(a) || a - b,
  );
  const largest = descending[0];
  if (largest !== undefined && length(largest) > maxTokens) {
    throw new DataError(
      `${where(largest)}: this example alone needs ${length(largest)} tokens, and a micro-batch holds at ` +
        `most ${maxTokens}`,
      {
        hint: `set max_tokens_per_micro_batch to ${length(largest)} or more, or lower max_length`,
      },
    );
  }
  const batches: { room: number; members: number[] }[] = [];
  for (const i of descending) {
    let batch = batches.find(({ room }) => room >= length(i));
    if (batch === undefined) {
      batch = { room: maxTokens, members: [] };
      batches.push(batch);
    }
    batch.members.push(i);
    batch.room -= length(i);
  }
  return batches
    .map(({ members }) => members.sort((a, b) => a - b))
    .sort((a, b) => (a[0] as number) - (b[0] as number));
}

/** Collects the arrays of one micro-batch. */
class BatchBuilder {
  private readonly tokens: number[] = [];
  private readonly positions: number[] = [];
  private readonly segments: number[] = [];
  private readonly scoredRows: number[] = [];
  private readonly scoredLabels: number[] = [];
  private readonly responses: number[] = [];
  private realTokens = 0;
  private readonly members: number[] = [];

  /** Appends `ids[from..to)` as a segment that also sees the rows `[prefixStart, prefixEnd)`. */
  private segment(ids: Int32Array, from: number, to: number, prefix?: [number, number]): number {
    const start = this.tokens.length;
    if (to === from) return start;
    for (let i = from; i < to; i++) {
      this.tokens.push(ids[i] as number);
      this.positions.push(i);
    }
    const [prefixStart, prefixEnd] = prefix ?? [start, start];
    this.segments.push(start, this.tokens.length, prefixStart, prefixEnd);
    return start;
  }

  /** Appends the scored entries of a response; `rowOf(i)` is the row of the sequence's token i. */
  private response(labels: Int32Array, side: 0 | 1, rowOf: (i: number) => number): void {
    const begin = this.scoredRows.length;
    for (let i = 1; i < labels.length; i++) {
      const label = labels[i] as number;
      if (label === IGNORE) continue;
      this.scoredRows.push(rowOf(i - 1)); // row i − 1 predicts token i
      this.scoredLabels.push(label);
    }
    this.responses.push(begin, this.scoredRows.length, side);
  }

  /** Appends pair `member` of those that are packed. */
  pair(member: number, pair: TokenizedPair, prefixSharing: boolean): void {
    const shared = prefixSharing ? sharedPrefix(pair) : 0;
    const prompt = this.segment(pair.chosen.ids, 0, shared);
    const sides = [pair.chosen, pair.rejected] as const;
    for (const [side, { ids, labels }] of sides.entries()) {
      const branch =
        shared === 0
          ? this.segment(ids, 0, ids.length)
          : this.segment(ids, shared, ids.length, [prompt, prompt + shared]);
      this.response(labels, side as 0 | 1, (i) => (i < shared ? prompt + i : branch + i - shared));
      this.realTokens += ids.length;
    }
    this.members.push(member);
  }

  /** Appends sequence `member` of those that are packed. */
  sequence(member: number, { ids, labels }: TokenizedSequence): void {
    const start = this.segment(ids, 0, ids.length);
    this.response(labels, 0, (i) => start + i);
    this.realTokens += ids.length;
    this.members.push(member);
  }

  build(): PackedBatch {
    const tokens = Int32Array.from(this.tokens);
    return {
      tokens,
      positions: Int32Array.from(this.positions),
      segments: Int32Array.from(this.segments),
      scoredRows: Int32Array.from(this.scoredRows),
      scoredLabels: Int32Array.from(this.scoredLabels),
      rowSources: invertRows(this.scoredRows, tokens.length),
      responses: Int32Array.from(this.responses),
      ...groupByToken(tokens),
      realTokens: this.realTokens,
      examples: this.members.length,
      members: Int32Array.from(this.members),
    };
  }
}

/** (T, 2) for each row the entries of `scoredRows` that name it, ascending; −1 where there is none. */
function invertRows(scoredRows: readonly number[], rows: number): Int32Array {
  const sources = new Int32Array(2 * rows).fill(-1);
  for (const [entry, row] of scoredRows.entries()) {
    sources[2 * row + (sources[2 * row] === -1 ? 0 : 1)] = entry;
  }
  return sources;
}

/** Rows by token id, for the embedding's gradient. */
function groupByToken(
  tokens: Int32Array,
): Pick<PackedBatch, "uniqueTokens" | "tokenOffsets" | "tokenRows"> {
  const tokenRows = Int32Array.from(tokens.keys()).sort(
    (a, b) => (tokens[a] as number) - (tokens[b] as number) || a - b,
  );
  const unique: number[] = [];
  const offsets: number[] = [];
  for (const [i, row] of tokenRows.entries()) {
    const token = tokens[row] as number;
    if (token !== unique.at(-1)) {
      unique.push(token);
      offsets.push(i);
    }
  }
  offsets.push(tokens.length);
  return {
    uniqueTokens: Int32Array.from(unique),
    tokenOffsets: Int32Array.from(offsets),
    tokenRows,
  };
}

function requireScored(sequence: TokenizedSequence, where: string): void {
  if (promptLength(sequence) < sequence.labels.length) return;
  throw new DataError(`${where}: expected at least one token to score, found none`, {
    hint: "leave such examples out; label 0 is never scored, because nothing precedes it",
  });
}

/** An example of those that are packed: its index among them, and what it holds. */
export type Member<Example> = readonly [index: number, example: Example];

/**
 * One micro-batch of whole pairs, in the order given; without pairs it holds nothing.
 * @throws DataError for a pair that has a side without scored tokens.
 */
export function pairBatch(
  members: readonly Member<TokenizedPair>[],
  { prefixSharing, where = (i) => `pair ${i}` }: Omit<PackOptions, "maxTokens">,
): PackedBatch {
  const builder = new BatchBuilder();
  for (const [i, pair] of members) {
    requireScored(pair.chosen, `${where(i)}: chosen`);
    requireScored(pair.rejected, `${where(i)}: rejected`);
    builder.pair(i, pair, prefixSharing);
  }
  return builder.build();
}

/** One micro-batch of plain sequences (`loss_type: sft`); see {@link pairBatch}. */
export function sequenceBatch(
  members: readonly Member<TokenizedSequence>[],
  { where = (i) => `sequence ${i}` }: Pick<PackOptions, "where"> = {},
): PackedBatch {
  const builder = new BatchBuilder();
  for (const [i, sequence] of members) {
    requireScored(sequence, where(i));
    builder.sequence(i, sequence);
  }
  return builder.build();
}

/**
 * Packs the pairs of a step into micro-batches of whole pairs; the result depends on nothing but the
 * arguments. Throws `DataError` for a pair that exceeds `maxTokens` or has a side without scored tokens.
 */
export function packPairs(pairs: readonly TokenizedPair[], options: PackOptions): PackedBatch[] {
  const { maxTokens, prefixSharing, where = (i) => `pair ${i}` } = options;
  const lengths = pairs.map((pair) => pairTokens(pair, prefixSharing));
  return packLengths(lengths, { maxTokens, where }).map((members) =>
    pairBatch(
      members.map((i) => [i, pairs[i] as TokenizedPair]),
      { prefixSharing, where },
    ),
  );
}

/** Packs plain sequences (`loss_type: sft`) into micro-batches; see `packPairs`. */
export function packSequences(
  sequences: readonly TokenizedSequence[],
  { maxTokens, where = (i) => `sequence ${i}` }: Pick<PackOptions, "maxTokens" | "where">,
): PackedBatch[] {
  const lengths = sequences.map(({ ids }) => ids.length);
  return packLengths(lengths, { maxTokens, where }).map((members) =>
    sequenceBatch(
      members.map((i) => [i, sequences[i] as TokenizedSequence]),
      { where },
    ),
  );
}
