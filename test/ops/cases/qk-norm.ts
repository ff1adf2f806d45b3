import { sizeOf } from "#src/native/index.js";
import {
  derived,
  label,
  normal,
  type OpCase,
  out,
  product,
  uniform,
  update,
} from "../harness/case.js";
import type { Values } from "../harness/values.js";
import { add, dot } from "../reference/matrix.js";
import { qkNormBackward as backward, qkNormForward as forward } from "../reference/qk-norm.js";

const EPS = 1e-6;

type Place = "apart" | "in place" | "strided" | "aligned";

interface Shape {
  readonly T: number;
  readonly H: number;
  readonly K: number;
  readonly D: number;
  readonly dtype: "f32" | "bf16";
  readonly place: Place;
}

// Head dims that are no vector, less than one, and those of models; 70 and 300 rows are more than one block of
// the partial sums of a weight's gradient; key heads shared by 1, 3 and 8 query heads.
const SHAPES: readonly Shape[] = product({
  T: [0, 1, 33, 70],
  heads: [
    { H: 2, K: 2 },
    { H: 3, K: 1 },
  ],
  D: [2, 6, 16, 24, 64, 128],
  dtype: ["f32", "bf16"] as const,
  place: ["apart"] as const,
}).map(({ heads, ...shape }) => ({ ...shape, ...heads }));

const OTHERS: readonly Shape[] = [
  ...product({
    T: [33],
    H: [4],
    K: [2],
    D: [10, 64],
    dtype: ["f32", "bf16"] as const,
    place: ["in place", "strided"] as const,
  }),
  ...product({
    T: [5, 300],
    H: [8],
    K: [1],
    D: [64, 128],
    dtype: ["f32", "bf16"] as const,
    place: ["aligned"] as const,
  }),
  // A head of more than 128 columns; one whose sums are too long for shared memory.
  ...product({
    T: [9],
    H: [2],
    K: [1],
    D: [264, 800],
    dtype: ["f32", "bf16"] as const,
    place: ["aligned", "strided"] as const,
  }),
  // More rows than 512 blocks of 8.
  { T: 5003, H: 2, K: 1, D: 8, dtype: "bf16", place: "aligned" },
];

const ALL = [...SHAPES, ...OTHERS];

const nameOf = ({ place, ...sizes }: Shape) => `${label({ ...sizes })} ${place}`;
const eachRow = ({ place }: Shape) => ({ rowGap: place === "strided" ? 7 : 0 });

function forwardOf(v: Values, shape: Shape) {
  return forward(v.matrix("x"), v.array("qWeight"), v.array("kWeight"), shape, EPS);
}

export const qkNormForward: readonly OpCase[] = ALL.map((shape): OpCase => {
  const { T, H, K, D, dtype, place } = shape;
  const W = (H + 2 * K) * D;
  const rows = eachRow(shape);
  return {
    op: "qkNormForward",
    name: nameOf(shape),
    aligned: place === "aligned",
    args: {
      y: out(dtype, [T, W], place === "in place" ? { over: "x" } : rows),
      rstd: out("f32", [T, H + K]),
      x: normal(dtype, [T, W], { ...rows, scale: 2 }),
      qWeight: uniform(dtype, [D]),
      kWeight: uniform(dtype, [D], -1.5, -0.5), // never mistaken for the other
      heads: H,
      kvHeads: K,
      eps: EPS,
    },
    reference: (v) => ({ ...forwardOf(v, shape) }),
    bytes: 2 * T * W * sizeOf(dtype),
    flops: 4 * T * (H + K) * D,
  };
});

function backwardCase(shape: Shape): OpCase {
  const { T, H, K, D, dtype, place } = shape;
  const W = (H + 2 * K) * D;
  const rows = eachRow(shape);
  return {
    op: "qkNormBackward",
    name: nameOf(shape),
    aligned: place === "aligned",
    args: {
      dx: out(dtype, [T, W], place === "in place" ? { over: "dy" } : rows),
      dQWeight: update("f32", [D]),
      dKWeight: update("f32", [D]),
      dy: normal(dtype, [T, W], rows),
      x: normal(dtype, [T, W], { ...rows, scale: 2 }),
      qWeight: uniform(dtype, [D]),
      kWeight: uniform(dtype, [D], -1.5, -0.5),
      rstd: derived("f32", [T, H + K]),
      heads: H,
      kvHeads: K,
    },
    derive: (v) => ({ rstd: forwardOf(v, shape).rstd }),
    reference: (v) => {
      const [qWeight, kWeight] = [v.array("qWeight"), v.array("kWeight")];
      const g = backward(v.matrix("dy"), v.matrix("x"), qWeight, kWeight, v.array("rstd"), shape);
      return {
        dx: g.dx,
        dQWeight: add(v.array("dQWeight"), g.dQWeight),
        dKWeight: add(v.array("dKWeight"), g.dKWeight),
      };
    },
    ...(dtype === "f32" && T === 33 && (D === 6 || D === 16)
      ? {
          gradient: {
            of: { dx: "x", dQWeight: "qWeight", dKWeight: "kWeight" },
            loss: (v) => dot(forwardOf(v, shape).y, v.array("dy")),
          },
        }
      : {}),
    // A sum of T·H terms may come out near zero: its error is that of the terms.
    tolerance: {
      dQWeight: { absolute: 4e-6 * Math.sqrt(T * H + 1) },
      dKWeight: { absolute: 4e-6 * Math.sqrt(T * K + 1) },
    },
    bytes: 3 * T * W * sizeOf(dtype),
    flops: 8 * T * (H + K) * D,
  };
}

export const qkNormBackward: readonly OpCase[] = ALL.map(backwardCase);
