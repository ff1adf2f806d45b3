import { sizeOf } from "#src/native/index.js";
import { label, type OpCase, out, product } from "../harness/case.js";
import { rounded } from "../harness/dtype.js";

export const fill: readonly OpCase[] = [
  ...product({
    shape: [[0], [1], [1027], [3, 5, 7], [70_001]],
    dtype: ["f32", "bf16"] as const,
  }),
].flatMap(({ shape, dtype }) =>
  [0, -1.7, Number.POSITIVE_INFINITY].map((value): OpCase => {
    const elements = shape.reduce((a, b) => a * b, 1);
    return {
      op: "fill",
      name: `${dtype} (${shape}) = ${value}`,
      args: { x: out(dtype, shape), value },
      reference: () => ({ x: rounded(dtype, new Float64Array(elements).fill(value)) }),
      tolerance: { x: "exact" },
      bytes: elements * sizeOf(dtype),
      flops: 0,
    };
  }),
);

// Many blocks of whole vectors, and three elements.
export const fillLarge: readonly OpCase[] = [
  {
    op: "fill",
    name: "bf16 (1000003)",
    args: { x: out("bf16", [1_000_003]), value: -1.7 },
    reference: () => ({ x: rounded("bf16", new Float64Array(1_000_003).fill(-1.7)) }),
    tolerance: { x: "exact" },
    bytes: 2 * 1_000_003,
    flops: 0,
  },
];

// A strided view: the columns between the rows belong to somebody else.
export const fillStrided: readonly OpCase[] = product({
  T: [2, 33, 70_001], // more rows than the 65535 blocks that a grid is high
  C: [1, 17, 96],
  dtype: ["f32", "bf16"] as const,
})
  .filter(({ T, C }) => T < 70_001 || C === 1)
  .map(({ T, C, dtype }) => ({
    op: "fill",
    name: `strided ${label({ T, C, dtype })}`,
    args: { x: out(dtype, [T, C], { rowGap: 5 }), value: 0.5 },
    reference: () => ({ x: new Float64Array(T * C).fill(0.5) }),
    tolerance: { x: "exact" },
    bytes: T * C * sizeOf(dtype),
    flops: 0,
  }));
