import { type DType, sizeOf } from "#src/native/index.js";
import { given, normal, type OpCase, out, product } from "../harness/case.js";
import { rounded } from "../harness/dtype.js";

const STORED = ["f32", "bf16", "f16"] as const;

// What rounding gets wrong first: ties, carries into the exponent, the edges of each format, subnormals.
const CORNERS = [
  ...[0, -0, 1, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN],
  ...[65504, 65519.996, 65520, -65536, 3.3895e38, 3.4028234e38], // largest f16, its tie, bf16 and f32
  ...[1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -8, 1 + 3 * 2 ** -8], // ties of f16 and of bf16
  ...[2047.5, 2048.5, 1.99951171875, 1.998046875], // carries
  ...[2 ** -14, 2 ** -15, 2 ** -24, 2 ** -25, 1.5 * 2 ** -24, 2 ** -14 - 2 ** -25], // f16 subnormals
  ...[1e-38, -1e-40, 2 ** -149], // f32 subnormals
];

function convertCase(y: DType, x: DType, name: string, shape: number[], options: object): OpCase {
  return {
    op: "convert",
    name: `${x} to ${y} ${name}`,
    args: { y: out(y, shape, options), x: normal(x, shape, { ...options, scale: 3 }) },
    reference: (v) => ({ y: rounded(y, v.array("x")) }),
    tolerance: { y: "exact" }, // rounding to nearest even has one answer
    bytes: shape.reduce((a, b) => a * b, 1) * (sizeOf(x) + sizeOf(y)),
    flops: 0,
  };
}

export const convert: readonly OpCase[] = product({ y: STORED, x: STORED }).flatMap(({ y, x }) => [
  convertCase(y, x, "(0)", [0], {}),
  convertCase(y, x, "(1)", [1], {}),
  convertCase(y, x, "(40001)", [40_001], {}),
  { ...convertCase(y, x, "aligned (40008)", [40_008], {}), aligned: true },
  convertCase(y, x, "(3, 5, 7)", [3, 5, 7], {}),
  { ...convertCase(y, x, "aligned strided (5, 4112)", [5, 4112], { rowGap: 8 }), aligned: true },
  convertCase(y, x, "strided (33, 19)", [33, 19], { rowGap: 3 }),
  {
    ...convertCase(y, x, "corners", [CORNERS.length], {}),
    args: { y: out(y, [CORNERS.length]), x: given(x, [CORNERS.length], CORNERS) },
  },
]);

export const convertInPlace: readonly OpCase[] = STORED.map((dtype) => ({
  ...convertCase(dtype, dtype, "in place (257)", [257], {}),
  args: { y: out(dtype, [257], { over: "x" }), x: normal(dtype, [257]) },
}));
