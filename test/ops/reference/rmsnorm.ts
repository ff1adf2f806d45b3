import { type Matrix, zeros } from "./matrix.js";

/** y = x · rstd · weight, rstd = 1/sqrt(mean x² + eps). [Zhang & Sennrich 2019] */
export function rmsnormForward(
  x: Matrix,
  weight: Float64Array,
  eps: number,
): { y: Float64Array; rstd: Float64Array } {
  const y = zeros(x.rows, x.columns).data;
  const rstd = new Float64Array(x.rows);
  const C = x.columns;
  for (let t = 0; t < x.rows; t++) {
    let squares = 0;
    for (let c = 0; c < C; c++) squares += x.data[t * C + c]! ** 2;
    rstd[t] = 1 / Math.sqrt(squares / C + eps);
    for (let c = 0; c < C; c++) y[t * C + c] = x.data[t * C + c]! * rstd[t]! * weight[c]!;
  }
  return { y, rstd };
}

/** With g = dy·weight: dx = rstd·(g − x·rstd²·mean(g·x)), dWeight = sum over rows of dy·x·rstd. */
export function rmsnormBackward(
  dy: Float64Array,
  x: Matrix,
  weight: Float64Array,
  rstd: Float64Array,
): { dx: Float64Array; dWeight: Float64Array } {
  const dx = zeros(x.rows, x.columns).data;
  const dWeight = new Float64Array(x.columns);
  const C = x.columns;
  for (let t = 0; t < x.rows; t++) {
    const r = rstd[t]!;
    let mean = 0;
    for (let c = 0; c < C; c++) mean += (dy[t * C + c]! * weight[c]! * x.data[t * C + c]!) / C;
    for (let c = 0; c < C; c++) {
      const i = t * C + c;
      dx[i] = r * (dy[i]! * weight[c]! - x.data[i]! * r * r * mean);
      dWeight[c]! += dy[i]! * x.data[i]! * r;
    }
  }
  return { dx, dWeight };
}
