import { type Matrix, zeros } from "./matrix.js";

/** A run of rows [start, end) that also sees the keys [prefixStart, prefixEnd). */
export interface Segment {
  readonly start: number;
  readonly end: number;
  readonly prefixStart: number;
  readonly prefixEnd: number;
}

export function segmentsOf(table: Float64Array): Segment[] {
  return Array.from({ length: table.length / 4 }, (_, s) => ({
    start: table[4 * s]!,
    end: table[4 * s + 1]!,
    prefixStart: table[4 * s + 2]!,
    prefixEnd: table[4 * s + 3]!,
  }));
}

/** The keys that row `t` of a segment sees, spelt out: the last `window` of them, if that is not 0. */
export function visibleKeys(segment: Segment, t: number, window: number): number[] {
  const keys: number[] = [];
  for (let j = segment.prefixStart; j < segment.prefixEnd; j++) keys.push(j);
  for (let j = segment.start; j <= t; j++) keys.push(j);
  return window === 0 ? keys : keys.slice(-window);
}

/** Softmax attention, one row and head at a time, over exactly the keys the row may see. */
export function attentionForward(
  qkv: Matrix,
  segments: readonly Segment[],
  heads: number,
  kvHeads: number,
  window: number,
): { o: Float64Array; lse: Float64Array } {
  const D = qkv.columns / (heads + 2 * kvHeads);
  const o = zeros(qkv.rows, heads * D);
  const lse = zeros(qkv.rows, heads).data;
  for (let h = 0; h < heads; h++) {
    const { q, k, v } = splitHeads(qkv, h, heads, kvHeads);
    const oRows = columnsOf(o, h * D, D);
    for (const segment of segments) {
      for (let t = segment.start; t < segment.end; t++) {
        const keys = visibleKeys(segment, t, window);
        lse[t * heads + h] = attend(
          oRows[t]!,
          q[t]!,
          keys.map((j) => k[j]!),
          keys.map((j) => v[j]!),
        );
      }
    }
  }
  return { o: o.data, lse };
}

/** o = softmax(q·kᵀ/√D)·v of one query; returns logsumexp of its scores. */
function attend(o: Row, q: Row, k: readonly Row[], v: readonly Row[]): number {
  const scores = k.map((key) => dot(q, key) / Math.sqrt(q.length));
  const lse = logsumexp(scores);
  scores.forEach((s, i) => {
    addScaled(o, Math.exp(s - lse), v[i]!);
  });
  return lse;
}

/**
 * p = exp(s − lse); dp = dO·v; ds = p·(dp − rowsum(dO·o)); then dq, dk, dv. [Dao 2023, alg. 2]
 * Rows that no segment covers get zeros, even if a prefix lies there.
 */
export function attentionBackward(
  dO: Float64Array,
  o: Float64Array,
  lse: Float64Array,
  qkv: Matrix,
  segments: readonly Segment[],
  heads: number,
  kvHeads: number,
  window: number,
): Float64Array {
  const D = qkv.columns / (heads + 2 * kvHeads);
  const dQkv = zeros(qkv.rows, qkv.columns);
  const output = { rows: qkv.rows, columns: heads * D };
  for (let h = 0; h < heads; h++) {
    const { q, k, v } = splitHeads(qkv, h, heads, kvHeads);
    const { q: dq, k: dk, v: dv } = splitHeads(dQkv, h, heads, kvHeads);
    const oRows = columnsOf({ ...output, data: o }, h * D, D);
    const dORows = columnsOf({ ...output, data: dO }, h * D, D);
    for (const segment of segments) {
      for (let t = segment.start; t < segment.end; t++) {
        const delta = dot(dORows[t]!, oRows[t]!);
        for (const j of visibleKeys(segment, t, window)) {
          const p = Math.exp(dot(q[t]!, k[j]!) / Math.sqrt(D) - lse[t * heads + h]!);
          const ds = (p * (dot(dORows[t]!, v[j]!) - delta)) / Math.sqrt(D);
          addScaled(dq[t]!, ds, k[j]!);
          addScaled(dk[j]!, ds, q[t]!);
          addScaled(dv[j]!, p, dORows[t]!);
        }
      }
    }
  }
  for (let t = 0; t < qkv.rows; t++) {
    if (segments.some(({ start, end }) => start <= t && t < end)) continue;
    dQkv.data.fill(0, t * qkv.columns, (t + 1) * qkv.columns);
  }
  return dQkv.data;
}

/** One query row per sequence over the cache rows [begin, begin + length) of `ranges`. */
export function attentionDecode(
  qkv: Matrix,
  kCache: Matrix,
  vCache: Matrix,
  ranges: Float64Array,
  heads: number,
): Float64Array {
  const D = (qkv.columns - 2 * kCache.columns) / heads;
  const kvHeads = kCache.columns / D;
  const o = zeros(qkv.rows, heads * D);
  for (let h = 0; h < heads; h++) {
    const kv = Math.floor((h * kvHeads) / heads) * D;
    const [q, k, v] = [
      columnsOf(qkv, h * D, D),
      columnsOf(kCache, kv, D),
      columnsOf(vCache, kv, D),
    ];
    columnsOf(o, h * D, D).forEach((row, t) => {
      const begin = ranges[2 * t]!;
      const end = begin + ranges[2 * t + 1]!;
      attend(row, q[t]!, k.slice(begin, end), v.slice(begin, end));
    });
  }
  return o.data;
}

type Row = Float64Array;

/** Columns [first, first + D) of every row, as views. */
function columnsOf(x: Matrix, first: number, D: number): Row[] {
  return Array.from({ length: x.rows }, (_, t) =>
    x.data.subarray(t * x.columns + first, t * x.columns + first + D),
  );
}

/** Query head h and the key/value head it reads, h·K/H; the columns of qkv are {q heads, k heads, v heads}. */
function splitHeads(qkv: Matrix, h: number, heads: number, kvHeads: number) {
  const D = qkv.columns / (heads + 2 * kvHeads);
  const kv = Math.floor((h * kvHeads) / heads);
  return {
    q: columnsOf(qkv, h * D, D),
    k: columnsOf(qkv, (heads + kv) * D, D),
    v: columnsOf(qkv, (heads + kvHeads + kv) * D, D),
  };
}

function dot(a: Row, b: Row): number {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d]! * b[d]!;
  return sum;
}

function addScaled(target: Row, factor: number, x: Row): void {
  for (let d = 0; d < target.length; d++) target[d]! += factor * x[d]!;
}

export function logsumexp(values: ArrayLike<number>): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) max = Math.max(max, values[i]!);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.exp(values[i]! - max);
  return max + Math.log(sum);
}
