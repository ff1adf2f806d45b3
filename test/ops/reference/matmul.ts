import { type Matrix, zeros } from "./matrix.js";

/** c = a · b; nn: a (M,K) b (K,N) · nt: a (M,K) b (N,K) · tn: a (K,M) b (K,N). */
export function matmul(a: Matrix, b: Matrix, form: string): Matrix {
  const left = form === "tn" ? transposed(a) : a;
  const right = form === "nt" ? b : transposed(b);
  const c = zeros(left.rows, right.rows);
  const K = left.columns;
  for (let m = 0; m < c.rows; m++) {
    for (let n = 0; n < c.columns; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += left.data[m * K + k]! * right.data[n * K + k]!;
      c.data[m * c.columns + n] = sum;
    }
  }
  return c;
}

function transposed(x: Matrix): Matrix {
  const t = zeros(x.columns, x.rows);
  for (let r = 0; r < x.rows; r++) {
    for (let c = 0; c < x.columns; c++) t.data[c * x.rows + r] = x.data[r * x.columns + c]!;
  }
  return t;
}
