import { type DType, sizeOf } from "#src/native/index.js";
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
import { rounded } from "../harness/dtype.js";
import type { Values } from "../harness/values.js";
import { add, dot } from "../reference/matrix.js";
import { rmsnormBackward as backward, rmsnormForward as forward } from "../reference/rmsnorm.js";

const EPS = 1e-5;

// With 16 bytes per thread: several steps of a row; a row too long for sums in shared memory (16384 columns); more
// rows than 512 blocks of 8, and than the 65535 blocks that a grid is high.
const ALIGNED = [
  ...product({ T: [3, 33], C: [96, 5000], dtype: ["f32", "bf16"] as const }),
  { T: 9, C: 16_400, dtype: "f32" },
  { T: 9, C: 16_400, dtype: "bf16" },
  { T: 5003, C: 16, dtype: "bf16" },
  { T: 70_001, C: 8, dtype: "bf16" },
] as const;

/** One of the cases of ALIGNED, as its name says. */
function aligned(opCase: OpCase): OpCase {
  return { ...opCase, name: `${opCase.name} aligned`, aligned: true };
}

// C = 1 is all remainder, 16 and 96 fill vectors, 17 and 515 leave one or three elements over; 70 and 300
// rows are more than one block of the weight gradient's partial sums.
const SHAPES = product({
  T: [0, 1, 33, 70, 300],
  C: [1, 16, 17, 96, 515],
  dtype: ["f32", "bf16"] as const,
});

function normCase(
  T: number,
  C: number,
  dtype: DType,
  place: "apart" | "in place" | "strided",
): OpCase {
  const strided = { rowGap: place === "strided" ? 7 : 0 };
  return {
    op: "rmsnormForward",
    name: `${label({ T, C, dtype })} ${place}`,
    args: {
      y: out(dtype, [T, C], place === "in place" ? { over: "x" } : strided),
      rstd: out("f32", [T]),
      x: normal(dtype, [T, C], { ...strided, scale: 2 }),
      weight: uniform(dtype, [C]),
      eps: EPS,
    },
    reference: (v) => ({ ...forward(v.matrix("x"), v.array("weight"), v.scalar("eps")) }),
    bytes: 2 * T * C * sizeOf(dtype),
    flops: 4 * T * C,
  };
}

export const rmsnormForward: readonly OpCase[] = [
  ...SHAPES.map(({ T, C, dtype }) => normCase(T, C, dtype, "apart")),
  ...ALIGNED.map(({ T, C, dtype }) => aligned(normCase(T, C, dtype, "apart"))),
  ...product({ dtype: ["f32", "bf16"] as const, place: ["in place", "strided"] as const }).map(
    ({ dtype, place }) => normCase(33, 97, dtype, place),
  ),
  // Zero rows divide by sqrt(eps), not by zero.
  {
    ...normCase(3, 40, "f32", "apart"),
    name: "rows of zeros",
    args: {
      y: out("f32", [3, 40]),
      rstd: out("f32", [3]),
      x: normal("f32", [3, 40], { scale: 0 }),
      weight: uniform("f32", [40]),
      eps: EPS,
    },
  },
];

function addCase(T: number, C: number, dtype: DType, over: string): OpCase {
  return {
    op: "addRmsnormForward",
    name: `${label({ T, C, dtype })}${over ? ` sum over ${over}` : ""}`,
    args: {
      y: out(dtype, [T, C]),
      sum: out(dtype, [T, C], over ? { over } : {}),
      rstd: out("f32", [T]),
      x: normal(dtype, [T, C], { scale: 2 }),
      branch: normal(dtype, [T, C]),
      weight: uniform(dtype, [C]),
      eps: EPS,
    },
    reference: (v) => {
      // The norm is that of the sum as stored, which is what the backward will read.
      const sum = rounded(dtype, add(v.array("x"), v.array("branch")));
      const normed = forward({ rows: T, columns: C, data: sum }, v.array("weight"), EPS);
      return { ...normed, sum };
    },
    bytes: 4 * T * C * sizeOf(dtype),
    flops: 5 * T * C,
  };
}

export const addRmsnormForward: readonly OpCase[] = [
  ...product({
    T: [0, 1, 33, 70],
    C: [1, 17, 96, 515],
    dtype: ["f32", "bf16"] as const,
    over: ["", "x", "branch"],
  })
    .filter(({ C, over }) => over === "" || C === 96)
    .map(({ T, C, dtype, over }) => addCase(T, C, dtype, over)),
  ...ALIGNED.map(({ T, C, dtype }) => aligned(addCase(T, C, dtype, T === 33 ? "x" : ""))),
];

const rstdOf = (v: Values) => ({ rstd: forward(v.matrix("x"), v.array("weight"), EPS).rstd });

/**
 * One column is its own norm: dx is what remains of 1 − 1, and dWeight is a single sum of T terms that may
 * come out near zero. Their relative errors say nothing, so the error is measured against the terms.
 */
function oneColumn(T: number) {
  return { dx: { absolute: 1e-5 }, dWeight: { absolute: 1e-5 * Math.sqrt(T + 1) } };
}

function backwardCase(T: number, C: number, dtype: DType, strided: { rowGap: number }): OpCase {
  return {
    op: "rmsnormBackward",
    name: `${label({ T, C, dtype })}${strided.rowGap ? " strided" : ""}`,
    args: {
      dx: out(dtype, [T, C], strided),
      dWeight: update("f32", [C]),
      dy: normal(dtype, [T, C], strided),
      x: C === 1 ? uniform(dtype, [T, C]) : normal(dtype, [T, C], { ...strided, scale: 2 }),
      weight: uniform(dtype, [C]),
      rstd: derived("f32", [T]),
    },
    derive: rstdOf,
    reference: (v) => {
      const g = backward(v.array("dy"), v.matrix("x"), v.array("weight"), v.array("rstd"));
      return { dx: g.dx, dWeight: add(v.array("dWeight"), g.dWeight) };
    },
    ...(dtype === "f32" && T === 33 && (C === 16 || C === 17)
      ? {
          gradient: {
            of: { dx: "x", dWeight: "weight" },
            loss: (v) => dot(forward(v.matrix("x"), v.array("weight"), EPS).y, v.array("dy")),
          },
        }
      : {}),
    ...(C === 1 ? { tolerance: oneColumn(T) } : {}),
    bytes: 3 * T * C * sizeOf(dtype),
    flops: 8 * T * C,
  };
}

export const rmsnormBackward: readonly OpCase[] = [
  ...SHAPES.map(({ T, C, dtype }) => backwardCase(T, C, dtype, { rowGap: 0 })),
  ...ALIGNED.map(({ T, C, dtype }) => aligned(backwardCase(T, C, dtype, { rowGap: 0 }))),
  ...(["f32", "bf16"] as const).map((dtype) => backwardCase(33, 97, dtype, { rowGap: 9 })),
  ...(["f32", "bf16"] as const).map((dtype): OpCase => {
    const apart = backwardCase(70, 97, dtype, { rowGap: 0 });
    const args = { ...apart.args, dx: out(dtype, [70, 97], { over: "dy" }) };
    return { ...apart, name: `${apart.name} dx over dy`, args };
  }),
];

function backwardAddCase(T: number, C: number, dtype: DType, place: "apart" | "y over dy"): OpCase {
  const plain = backwardCase(T, C, dtype, { rowGap: 0 });
  const { dx: _, ...others } = plain.args;
  return {
    ...plain,
    op: "rmsnormBackwardAdd",
    name: `${plain.name} ${place}`,
    args: {
      dx: update(dtype, [T, C]),
      y: out(dtype, [T, C], place === "apart" ? {} : { over: "dy" }),
      ...others,
    },
    reference: (v) => {
      const g = backward(v.array("dy"), v.matrix("x"), v.array("weight"), v.array("rstd"));
      return {
        dx: add(v.array("dx"), g.dx),
        y: forward(v.matrix("x"), v.array("weight"), EPS).y,
        dWeight: add(v.array("dWeight"), g.dWeight),
      };
    },
    // dx is compared with what was there and what is added together; a single element of that may be near zero.
    tolerance: {
      ...(C === 1 ? { dWeight: oneColumn(T).dWeight } : {}),
      ...(C === 1 && dtype === "f32" ? { dx: oneColumn(T).dx } : {}),
    },
    bytes: 5 * T * C * sizeOf(dtype),
  };
}

export const rmsnormBackwardAdd: readonly OpCase[] = [
  ...SHAPES.map(({ T, C, dtype }) => backwardAddCase(T, C, dtype, "apart")),
  ...ALIGNED.map(({ T, C, dtype }) =>
    aligned(backwardAddCase(T, C, dtype, T === 33 ? "y over dy" : "apart")),
  ),
  ...(["f32", "bf16"] as const).map((dtype) => backwardAddCase(70, 97, dtype, "y over dy")),
];
