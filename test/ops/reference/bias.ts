import type { Matrix } from "./matrix.js";

/** x[t] + bias on every row. */
export function addBias(x: Matrix, bias: Float64Array): Float64Array {
  return x.data.map((value, i) => value + bias[i % x.columns]!);
}

/** Sums over rows. */
export function columnSums(x: Matrix): Float64Array {
  const sums = new Float64Array(x.columns);
  x.data.forEach((value, i) => {
    sums[i % x.columns]! += value;
  });
  return sums;
}
