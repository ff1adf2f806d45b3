import type { Stream, Tensor } from "../native/index.js";

/** Rows of a head group are padded to a multiple of this, so that few GEMM shapes occur. */
const GROUP_BUCKET = 32;

/** Consecutive scored rows whose logits are in memory together: whole responses, or one long response. */
export interface HeadGroup {
  /** Rows `[begin, begin + rows)` of the padded gather list. */
  readonly begin: number;
  readonly rows: number;
  /** Responses `[firstResponse, firstResponse + responses)`. */
  readonly firstResponse: number;
  readonly responses: number;
}

/** The gather list of a micro-batch with its groups: every group starts and ends on its own rows. */
export interface HeadPlan {
  readonly groups: readonly HeadGroup[];
  /** (N) rows to gather and tokens they predict; padding is -1 in both. */
  readonly rows: Int32Array;
  readonly labels: Int32Array;
  /** (R, 3) `{begin, end, side}` as ranges of the padded list. */
  readonly responses: Int32Array;
  /** (T, 2) inverse of `rows`. */
  readonly sources: Int32Array;
}

/** What {@link planHead} reads of a packed micro-batch. */
export interface ScoredRows {
  readonly scoredRows: Int32Array;
  readonly scoredLabels: Int32Array;
  readonly responses: Int32Array;
}

/**
 * Cuts the scored rows into groups of whole responses of at most `maxRows` rows; a longer response is a group
 * of its own and takes two passes. `tokens` is the padded token count of the micro-batch. `together`
 * responses in a row (2: the responses of a pair) are never parted.
 */
export function planHead(
  batch: ScoredRows,
  tokens: number,
  maxRows: number,
  together = 1,
): HeadPlan {
  const count = batch.responses.length / 3;
  const groups: HeadGroup[] = [];
  const responses = new Int32Array(batch.responses);
  const rows: number[] = [];
  const labels: number[] = [];
  for (let first = 0; first < count; ) {
    const begin = rows.length;
    let next = first;
    do {
      for (const end = next + together; next < end; next++) {
        const from = batch.responses[3 * next]!;
        const to = batch.responses[3 * next + 1]!;
        responses[3 * next] = rows.length;
        responses[3 * next + 1] = rows.length + to - from;
        for (let n = from; n < to; n++) {
          rows.push(batch.scoredRows[n]!);
          labels.push(batch.scoredLabels[n]!);
        }
      }
    } while (
      next < count &&
      rows.length - begin + length(batch.responses, next, together) <= maxRows
    );
    while ((rows.length - begin) % GROUP_BUCKET !== 0) {
      rows.push(-1);
      labels.push(-1);
    }
    groups.push({
      begin,
      rows: rows.length - begin,
      firstResponse: first,
      responses: next - first,
    });
    first = next;
  }
  const gather = Int32Array.from(rows);
  return {
    groups,
    rows: gather,
    labels: Int32Array.from(labels),
    responses,
    sources: invert(gather, tokens),
  };
}

/** Most rows a padded gather list can have. */
export function maxHeadRows(scored: number, responses: number): number {
  return scored + responses * (GROUP_BUCKET - 1);
}

/** Rows of `together` responses from `r` on. */
function length(responses: Int32Array, r: number, together: number): number {
  let rows = 0;
  for (let i = r; i < r + together; i++) rows += responses[3 * i + 1]! - responses[3 * i]!;
  return rows;
}

function invert(rows: Int32Array, tokens: number): Int32Array {
  const sources = new Int32Array(2 * tokens).fill(-1);
  rows.forEach((row, n) => {
    if (row < 0) return;
    sources[2 * row + (sources[2 * row] === -1 ? 0 : 1)] = n;
  });
  return sources;
}

/** The part of the head's work that the loss decides: fills `mean`, `loss` (R) and `coefficient` (N). */
export type LossOp = (
  s: Stream,
  mean: Tensor,
  loss: Tensor,
  coefficient: Tensor,
  logp: Tensor,
  responses: Tensor,
) => void;

/** logits = scored · headᵀ, logp = log-probability of each label. logits (n, V) f32 is left for the backward. */
export function headForward(
  s: Stream,
  logp: Tensor,
  lse: Tensor,
  logits: Tensor,
  scored: Tensor,
  head: Tensor,
  labels: Tensor,
): void {
  s.matmul(logits, scored, head, "nt"); //             (1)
  s.logprobForward(logp, lse, logits, labels); //      (2)
}

/** dScored = ; dHead +=. `dLogits` lies over `logits`. */
export function headBackward(
  s: Stream,
  dScored: Tensor,
  dHead: Tensor,
  dLogits: Tensor,
  logits: Tensor,
  lse: Tensor,
  labels: Tensor,
  coefficient: Tensor,
  scored: Tensor,
  head: Tensor,
): void {
  s.logprobBackward(dLogits, logits, lse, labels, coefficient); // undo (2)
  s.matmul(dScored, dLogits, head, "nn"); //                       undo (1), input
  s.matmulAdd(dHead, dLogits, scored, "tn"); //                    undo (1), weight
}
