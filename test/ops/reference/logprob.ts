import { logsumexp } from "./attention.js";
import { type Matrix, zeros } from "./matrix.js";

/** lse = logsumexp of each row, logp = logits[label] − lse; label -1: logp = 0. */
export function logprobForward(
  logits: Matrix,
  labels: Float64Array,
): { logp: Float64Array; lse: Float64Array } {
  const V = logits.columns;
  const lse = labels.map((_, n) => logsumexp(logits.data.subarray(n * V, (n + 1) * V)));
  const logp = labels.map((label, n) => (label < 0 ? 0 : logits.data[n * V + label]! - lse[n]!));
  return { logp, lse };
}

/** dLogits = coefficient·(onehot − softmax); label -1: zeros. */
export function logprobBackward(
  logits: Matrix,
  lse: Float64Array,
  labels: Float64Array,
  coefficient: Float64Array,
): Float64Array {
  const V = logits.columns;
  const dLogits = zeros(logits.rows, V).data;
  labels.forEach((label, n) => {
    if (label < 0) return;
    for (let v = 0; v < V; v++) {
      const softmax = Math.exp(logits.data[n * V + v]! - lse[n]!);
      dLogits[n * V + v] = coefficient[n]! * ((v === label ? 1 : 0) - softmax);
    }
  });
  return dLogits;
}
