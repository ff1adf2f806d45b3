import { IGNORE, type TokenizedPair, type TokenizedSequence } from "./types.js";

/** Ids per chunk: 64 Ki at first, doubling up to 1 Mi, so that small sets stay small. */
const FIRST_CHUNK = 1 << 16;
const LAST_CHUNK = 1 << 20;

/** A list of 32-bit integers that grows. */
class Int32List {
  length = 0;
  private values = new Int32Array(256);

  push(value: number): void {
    if (this.length === this.values.length) {
      const grown = new Int32Array(2 * this.values.length);
      grown.set(this.values);
      this.values = grown;
    }
    this.values[this.length] = value;
    this.length += 1;
  }

  at(i: number): number {
    const value = i < this.length ? this.values[i] : undefined;
    if (value === undefined) throw new RangeError(`index ${i} of ${this.length}`);
    return value;
  }

  get bytes(): number {
    return this.values.byteLength;
  }
}

/**
 * Tokenized sequences in a few large buffers outside the JavaScript heap: 4 bytes per token, plus the
 * runs of scored tokens, from which labels are rebuilt.
 */
export class SequenceStore {
  private readonly chunks: Int32Array[] = [];
  private used = 0;
  private readonly chunkOf = new Int32List();
  private readonly offsets = new Int32List();
  private readonly lengths = new Int32List();
  /** Sequence i scores the tokens `[runs[2r], runs[2r + 1])` for r in `[firstRun[i], firstRun[i + 1])`. */
  private readonly firstRun = new Int32List();
  private readonly runs = new Int32List();
  private readonly files: string[] = [];
  private readonly fileOf = new Int32List();
  private readonly lines = new Int32List();
  private order: Int32Array | undefined;

  /** Number of sequences. */
  get length(): number {
    return this.lengths.length;
  }

  /** Memory held, in bytes. */
  get bytes(): number {
    const lists = [
      this.chunkOf,
      this.offsets,
      this.lengths,
      this.firstRun,
      this.runs,
      this.fileOf,
      this.lines,
    ];
    const ids = this.chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
    return lists.reduce((sum, list) => sum + list.bytes, ids + (this.order?.byteLength ?? 0));
  }

  /** Copies a sequence in; `where` is `file:line` of its row. */
  append({ ids, labels }: TokenizedSequence, where: string): void {
    let chunk = this.chunks.at(-1);
    if (chunk === undefined || this.used + ids.length > chunk.length) {
      const size = Math.min(LAST_CHUNK, FIRST_CHUNK << Math.min(this.chunks.length, 16));
      chunk = new Int32Array(Math.max(size, ids.length));
      this.chunks.push(chunk);
      this.used = 0;
    }
    chunk.set(ids, this.used);
    this.chunkOf.push(this.chunks.length - 1);
    this.offsets.push(this.used);
    this.lengths.push(ids.length);
    this.used += ids.length;

    this.firstRun.push(this.runs.length / 2);
    for (let i = 0; i < labels.length; i++) {
      const scored = labels[i] !== IGNORE;
      if (scored !== (i > 0 && labels[i - 1] !== IGNORE)) this.runs.push(i);
    }
    if (labels.length > 0 && labels.at(-1) !== IGNORE) this.runs.push(labels.length);

    const colon = where.lastIndexOf(":");
    const file = where.slice(0, colon);
    if (this.files.at(-1) !== file) this.files.push(file);
    this.fileOf.push(this.files.length - 1);
    this.lines.push(Number(where.slice(colon + 1)));
  }

  /**
   * From now on sequence `i` is what was sequence `order[i]`; nothing is moved. `order` is a permutation of all
   * sequences, which are complete: nothing is appended afterwards.
   */
  reorder(order: Int32Array): void {
    this.order = order;
  }

  /** Where sequence `i` is kept. */
  private place(i: number): number {
    return this.order === undefined ? i : (this.order[i] ?? this.length);
  }

  /** Number of tokens of sequence `i`. */
  tokens(i: number): number {
    return this.lengths.at(this.place(i));
  }

  /** Sequence `i`: `ids` is a view, `labels` is made anew. */
  sequence(index: number): TokenizedSequence {
    const i = this.place(index);
    const chunk = this.chunks[this.chunkOf.at(i)] as Int32Array;
    const offset = this.offsets.at(i);
    const ids = chunk.subarray(offset, offset + this.lengths.at(i));
    const labels = new Int32Array(ids.length).fill(IGNORE);
    const end = i + 1 < this.length ? this.firstRun.at(i + 1) : this.runs.length / 2;
    for (let run = this.firstRun.at(i); run < end; run++) {
      const from = this.runs.at(2 * run);
      labels.set(ids.subarray(from, this.runs.at(2 * run + 1)), from);
    }
    return { ids, labels };
  }

  /** `file:line` of the row that sequence `i` came from. */
  where(index: number): string {
    const i = this.place(index);
    return `${this.files[this.fileOf.at(i)]}:${this.lines.at(i)}`;
  }
}

/** Tokenized pairs, stored as two sequences each. */
export class PairStore {
  private readonly sequences = new SequenceStore();

  /** Number of pairs. */
  get length(): number {
    return this.sequences.length / 2;
  }

  /** Memory held, in bytes. */
  get bytes(): number {
    return this.sequences.bytes;
  }

  /** Copies a pair in; `where` is `file:line` of its row. */
  append(pair: TokenizedPair, where: string): void {
    this.sequences.append(pair.chosen, where);
    this.sequences.append(pair.rejected, where);
  }

  /** From now on pair `i` is what was pair `order[i]`; see {@link SequenceStore.reorder}. */
  reorder(order: Int32Array): void {
    const sequences = new Int32Array(2 * order.length);
    for (const [i, from] of order.entries()) {
      sequences[2 * i] = 2 * from;
      sequences[2 * i + 1] = 2 * from + 1;
    }
    this.sequences.reorder(sequences);
  }

  /** Pair `i`: the ids are views, the labels are made anew. */
  pair(i: number): TokenizedPair {
    return {
      chosen: this.sequences.sequence(2 * i),
      rejected: this.sequences.sequence(2 * i + 1),
    };
  }

  /** `file:line` of the row that pair `i` came from. */
  where(i: number): string {
    return this.sequences.where(2 * i);
  }
}
