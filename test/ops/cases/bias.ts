import { sizeOf } from "#src/native/index.js";
import { label, normal, type OpCase, product, update } from "../harness/case.js";
import { columnSums, addBias as forward } from "../reference/bias.js";
import { add, dot } from "../reference/matrix.js";

// 16 and 96 fill vectors, 1, 17 and 515 do not; 70 and 300 rows are more than one block of partial sums. With
// 16 bytes per thread (aligned): several steps of a row, and more rows than a grid is high.
const SHAPES = product({
  T: [0, 1, 33, 70, 300],
  N: [1, 16, 17, 96, 515],
  dtype: ["f32", "bf16"] as const,
  aligned: [false],
});
const ALIGNED = [
  ...product({ T: [3, 33], N: [96, 5000], dtype: ["f32", "bf16"] as const, aligned: [true] }),
  ...product({ T: [70_001], N: [8], dtype: ["f32", "bf16"] as const, aligned: [true] }),
];

type Shape = (typeof SHAPES)[number];

const nameOf = ({ T, N, dtype, aligned }: Shape, rowGap = 0) =>
  `${label({ T, N, dtype })}${aligned ? " aligned" : ""}${rowGap > 0 ? " strided" : ""}`;

function addCase(shape: Shape, rowGap = 0): OpCase {
  const { T, N, dtype, aligned } = shape;
  return {
    op: "addBias",
    name: nameOf(shape, rowGap),
    aligned,
    args: { x: update(dtype, [T, N], { rowGap }), bias: normal(dtype, [N]) },
    reference: (v) => ({ x: forward(v.matrix("x"), v.array("bias")) }),
    bytes: 2 * T * N * sizeOf(dtype),
    flops: T * N,
  };
}

export const addBias: readonly OpCase[] = [
  ...[...SHAPES, ...ALIGNED].map((shape) => addCase(shape)),
  ...(["f32", "bf16"] as const).map((dtype) => addCase({ T: 33, N: 97, dtype, aligned: false }, 7)),
];

function backwardCase(shape: Shape, rowGap = 0): OpCase {
  const { T, N, dtype, aligned } = shape;
  return {
    op: "biasBackward",
    name: nameOf(shape, rowGap),
    aligned,
    args: { dBias: update("f32", [N]), dy: normal(dtype, [T, N], { rowGap }) },
    reference: (v) => ({ dBias: add(v.array("dBias"), columnSums(v.matrix("dy"))) }),
    // A sum of T terms may come out near zero: its error is that of the terms.
    tolerance: { dBias: { absolute: 2e-6 * Math.sqrt(T + 1) } },
    ...(dtype === "f32" && T === 33 && N === 17
      ? {
          gradient: {
            of: { dBias: "bias" },
            start: () => ({ bias: new Float64Array(N) }),
            loss: (v) => {
              const x = { rows: T, columns: N, data: new Float64Array(T * N) };
              return dot(forward(x, v.array("bias")), v.array("dy"));
            },
          },
        }
      : {}),
    bytes: T * N * sizeOf(dtype),
    flops: T * N,
  };
}

export const biasBackward: readonly OpCase[] = [
  ...[...SHAPES, ...ALIGNED].map((shape) => backwardCase(shape)),
  ...(["f32", "bf16"] as const).map((dtype) =>
    backwardCase({ T: 33, N: 97, dtype, aligned: false }, 9),
  ),
];
