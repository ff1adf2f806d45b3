import { sizeOf } from "#src/native/index.js";
import {
  given,
  indices,
  label,
  normal,
  type OpCase,
  out,
  product,
  update,
} from "../harness/case.js";
import { Random } from "../harness/random.js";
import { add, dot } from "../reference/matrix.js";
import { embeddingBackward as backward, gatherRows } from "../reference/rows.js";

const SHAPES = product({
  T: [0, 1, 33, 300],
  V: [1, 40, 301],
  C: [1, 17, 96, 520],
  dtype: ["f32", "bf16"] as const,
}).filter(({ T, V, C }) => (T !== 300 || V === 40) && (C !== 520 || V === 40));

// Rows that a block of 256 threads with 16 bytes each does not cover, and more than 65535 of them.
const LARGE = [
  { T: 5, V: 9, C: 4104, dtype: "f32" },
  { T: 5, V: 9, C: 4104, dtype: "bf16" },
  { T: 70_001, V: 301, C: 1, dtype: "f32" },
] as const;

export const embeddingForward: readonly OpCase[] = [...SHAPES, ...LARGE].map(
  ({ T, V, C, dtype }) => ({
    op: "embeddingForward",
    name: label({ T, V, C, dtype }),
    aligned: C > 1000,
    args: {
      y: out(dtype, [T, C]),
      tokens: indices([T], V),
      weight: normal(dtype, [V, C]),
    },
    reference: (v) => ({ y: gatherRows(v.matrix("weight"), v.array("tokens")) }),
    tolerance: { y: "exact" }, // a copy
    bytes: 2 * T * C * sizeOf(dtype),
    flops: 0,
  }),
);

/** The rows of each token that occurs, as the data loader lists them. */
function rowsOfTokens(tokens: readonly number[]) {
  const unique = [...new Set(tokens)];
  const offsets = [0];
  const rows: number[] = [];
  for (const token of unique) {
    tokens.forEach((other, t) => {
      if (other === token) rows.push(t);
    });
    offsets.push(rows.length);
  }
  return { unique, offsets, rows };
}

export const embeddingBackward: readonly OpCase[] = [...SHAPES, ...LARGE].map(
  ({ T, V, C, dtype }) => {
    const name = label({ T, V, C, dtype });
    const random = new Random(`tokens of ${name}`);
    const tokens = Array.from({ length: T }, () => random.below(V));
    const { unique, offsets, rows } = rowsOfTokens(tokens);
    return {
      op: "embeddingBackward",
      name,
      aligned: C > 1000,
      args: {
        dWeight: update("f32", [V, C]),
        dy: normal(dtype, [T, C]),
        unique: given("i32", [unique.length], unique),
        offsets: given("i32", [offsets.length], offsets),
        rows: given("i32", [rows.length], rows),
      },
      reference: (v) => ({
        dWeight: add(v.array("dWeight"), backward(v.matrix("dy"), tokens, V)),
      }),
      // A single sum may come out near zero: its error is measured against its terms.
      ...(V * C === 1 ? { tolerance: { dWeight: { absolute: 1e-6 * (T + 1) } } } : {}),
      ...(dtype === "f32" && T === 33 && C === 17
        ? {
            gradient: {
              of: { dWeight: "weight" },
              start: () => ({ weight: new Float64Array(V * C) }), // linear: the same everywhere
              loss: (v) => {
                const weight = { rows: V, columns: C, data: v.array("weight") };
                return dot(gatherRows(weight, Float64Array.from(tokens)), v.array("dy"));
              },
            },
          }
        : {}),
      bytes: T * C * sizeOf(dtype) + 8 * unique.length * C,
      flops: T * C,
    };
  },
);

// Padding rows are in no token's list: they must not count.
export const embeddingBackwardUnlisted: readonly OpCase[] = [
  {
    op: "embeddingBackward",
    name: "rows that no token lists",
    args: {
      dWeight: update("f32", [9, 20]),
      dy: given("f32", [6, 20], (random, n) =>
        Float64Array.from({ length: n }, (_, i) => (i >= 80 ? Number.NaN : random.normal())),
      ),
      unique: given("i32", [2], [7, 3]),
      offsets: given("i32", [3], [0, 1, 4]),
      rows: given("i32", [4], [2, 0, 3, 1]),
    },
    reference: (v) => {
      const dy = { rows: 4, columns: 20, data: v.array("dy").subarray(0, 80) };
      return { dWeight: add(v.array("dWeight"), backward(dy, [3, 3, 7, 3], 9)) };
    },
    bytes: 4 * 20 * 8,
    flops: 80,
  },
];
