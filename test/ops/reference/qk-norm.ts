import { add, type Matrix } from "./matrix.js";
import { rmsnormBackward, rmsnormForward } from "./rmsnorm.js";

/** Heads of a row {q heads, k heads, v heads}. */
export interface QkvHeads {
  readonly H: number;
  readonly K: number;
  readonly D: number;
}

/** The D columns of one head, all rows. */
function headOf(x: Matrix, h: number, D: number): Matrix {
  const data = new Float64Array(x.rows * D);
  for (let t = 0; t < x.rows; t++) {
    const first = t * x.columns + h * D;
    data.set(x.data.subarray(first, first + D), t * D);
  }
  return { rows: x.rows, columns: D, data };
}

function putHead(to: Matrix, h: number, head: Float64Array, D: number): void {
  for (let t = 0; t < to.rows; t++) {
    to.data.set(head.subarray(t * D, (t + 1) * D), t * to.columns + h * D);
  }
}

/** RMSNorm of every q head with qWeight and of every k head with kWeight, one head at a time. */
export function qkNormForward(
  x: Matrix,
  qWeight: Float64Array,
  kWeight: Float64Array,
  { H, K, D }: QkvHeads,
  eps: number,
): { y: Float64Array; rstd: Float64Array } {
  const y = { ...x, data: x.data.slice() };
  const rstd = new Float64Array(x.rows * (H + K));
  for (let h = 0; h < H + K; h++) {
    const head = rmsnormForward(headOf(x, h, D), h < H ? qWeight : kWeight, eps);
    putHead(y, h, head.y, D);
    for (let t = 0; t < x.rows; t++) rstd[t * (H + K) + h] = head.rstd[t]!;
  }
  return { y: y.data, rstd };
}

/** The gradient of each head by itself; those of a weight summed over the heads that share it. */
export function qkNormBackward(
  dy: Matrix,
  x: Matrix,
  qWeight: Float64Array,
  kWeight: Float64Array,
  rstd: Float64Array,
  { H, K, D }: QkvHeads,
): { dx: Float64Array; dQWeight: Float64Array; dKWeight: Float64Array } {
  const dx = { ...dy, data: dy.data.slice() };
  let dQWeight: Float64Array = new Float64Array(D);
  let dKWeight: Float64Array = new Float64Array(D);
  for (let h = 0; h < H + K; h++) {
    const rstdOfHead = rstd.filter((_, i) => i % (H + K) === h);
    const weight = h < H ? qWeight : kWeight;
    const head = rmsnormBackward(headOf(dy, h, D).data, headOf(x, h, D), weight, rstdOfHead);
    putHead(dx, h, head.dx, D);
    if (h < H) dQWeight = add(dQWeight, head.dWeight);
    else dKWeight = add(dKWeight, head.dWeight);
  }
  return { dx: dx.data, dQWeight, dKWeight };
}
