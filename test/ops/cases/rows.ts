import { sizeOf } from "#src/native/index.js";
import { given, label, normal, type OpCase, out, product } from "../harness/case.js";
import { Random } from "../harness/random.js";
import { dot } from "../reference/matrix.js";
import { gatherRows as gather, scatterRows as scatter } from "../reference/rows.js";

const SHAPES = product({
  T: [1, 33, 150],
  N: [0, 1, 40, 170],
  C: [1, 17, 96, 260],
  dtype: ["f32", "bf16"] as const,
});

// Rows longer than a block of 256 threads moves with 16 bytes each, and more than the 65535 blocks that a grid is high.
const LARGE = [
  { T: 9, N: 14, C: 4104, dtype: "f32" },
  { T: 9, N: 14, C: 4104, dtype: "bf16" },
  { T: 70_001, N: 70_003, C: 1, dtype: "bf16" },
] as const;

/** Scored rows of a batch of T: some twice, as the row before the first token of both branches is, some none. */
function scoredRows(name: string, T: number, N: number): number[] {
  const random = new Random(`rows of ${name}`);
  const uses = new Array<number>(T).fill(0);
  return Array.from({ length: N }, () => {
    const row = random.below(T + 1) - 1;
    if (row < 0 || uses[row]! >= 2) return -1;
    uses[row]!++;
    return row;
  });
}

export const gatherRows: readonly OpCase[] = [...SHAPES, ...LARGE].map(({ T, N, C, dtype }) => {
  const name = label({ T, N, C, dtype });
  return {
    op: "gatherRows",
    name,
    aligned: C > 1000,
    args: {
      y: out(dtype, [N, C]),
      x: normal(dtype, [T, C]),
      rows: given("i32", [N], scoredRows(name, T, N)),
    },
    reference: (v) => ({ y: gather(v.matrix("x"), v.array("rows")) }),
    tolerance: { y: "exact" }, // a copy
    bytes: 2 * N * C * sizeOf(dtype),
    flops: 0,
  };
});

export const scatterRows: readonly OpCase[] = [...SHAPES, ...LARGE].map(({ T, N, C, dtype }) => {
  const name = label({ T, N, C, dtype });
  const rows = scoredRows(name, T, N);
  const uses = new Map<number, number[]>();
  for (const [n, row] of rows.entries()) uses.set(row, [...(uses.get(row) ?? []), n]);
  const sources = Array.from({ length: T }, (_, t) => {
    const of = uses.get(t) ?? [];
    return t % 2 ? [of[0] ?? -1, of[1] ?? -1] : [of[1] ?? -1, of[0] ?? -1]; // a lone source may stand second
  });
  return {
    op: "scatterRows",
    name,
    aligned: C > 1000,
    args: {
      dx: out(dtype, [T, C]),
      dy: normal(dtype, [N, C]),
      sources: given("i32", [T, 2], sources.flat()),
    },
    reference: (v) => ({ dx: scatter(v.matrix("dy"), v.array("sources")) }),
    ...(dtype === "f32" && T === 33 && N === 40 && C === 17
      ? {
          gradient: {
            of: { dx: "x" },
            start: () => ({ x: new Float64Array(T * C) }), // linear: the same everywhere
            loss: (v) => {
              const x = { rows: T, columns: C, data: v.array("x") };
              return dot(gather(x, Float64Array.from(rows)), v.array("dy"));
            },
          },
        }
      : {}),
    bytes: (T + N) * C * sizeOf(dtype),
    flops: N * C,
  };
});

// Strided, and one row gathered by every n.
export const gatherRowsStrided: readonly OpCase[] = (["f32", "bf16"] as const).map((dtype) => ({
  op: "gatherRows",
  name: `strided, one row for all ${dtype}`,
  args: {
    y: out(dtype, [20, 33], { rowGap: 3 }),
    x: normal(dtype, [9, 33], { rowGap: 5 }),
    rows: given("i32", [20], new Array<number>(20).fill(8)),
  },
  reference: (v) => ({ y: gather(v.matrix("x"), v.array("rows")) }),
  tolerance: { y: "exact" },
  bytes: 2 * 20 * 33 * sizeOf(dtype),
  flops: 0,
}));
