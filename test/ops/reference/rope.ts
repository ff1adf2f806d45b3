import type { Matrix } from "./matrix.js";

/**
 * Rotates the first `heads` heads of each row: (a, b) = (x[i], x[i + D/2]) becomes
 * (a·cos − b·sin, b·cos + a·sin); `direction` -1 rotates back. table (P, D) = {cos, sin}. [Su et al. 2021]
 */
export function rope(
  x: Matrix,
  positions: Float64Array,
  table: Matrix,
  heads: number,
  direction: 1 | -1,
): Float64Array {
  const y = x.data.slice();
  const D = table.columns;
  for (let t = 0; t < x.rows; t++) {
    const angles = table.data.subarray(positions[t]! * D, (positions[t]! + 1) * D);
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < D / 2; i++) {
        const first = t * x.columns + h * D + i;
        const second = first + D / 2;
        const cos = angles[i]!;
        const sin = direction * angles[i + D / 2]!;
        y[first] = x.data[first]! * cos - x.data[second]! * sin;
        y[second] = x.data[second]! * cos + x.data[first]! * sin;
      }
    }
  }
  return y;
}
