import { type DType, MATMUL_FORMS, type MatmulForm, sizeOf } from "#src/native/index.js";
import { normal, type OpCase, out, product, update } from "../harness/case.js";
import { matmul as reference } from "../reference/matmul.js";
import { add } from "../reference/matrix.js";

interface Sizes {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

const SIZES: readonly Sizes[] = [
  { M: 1, N: 1, K: 1 },
  { M: 1, N: 130, K: 67 }, // one row: generation
  { M: 17, N: 33, K: 65 }, // no size a multiple of a tile
  { M: 130, N: 96, K: 257 },
  { M: 304, N: 40, K: 72 }, // rows in two calls of oneDNN
  { M: 600, N: 24, K: 40 }, // b reordered for the rows of the first call
  { M: 3, N: 5, K: 17_000 }, // a sum in three calls, as over an LM head's vocabulary
  { M: 8_300, N: 6, K: 9 }, // the rows of a head's gradient, in two calls
  { M: 0, N: 8, K: 8 }, // an empty micro-batch
  { M: 5, N: 7, K: 0 }, // … and what it adds to a weight's gradient: nothing
];

function matmulCase(sizes: Sizes, form: MatmulForm, x: DType, c: DType, gap: number): OpCase {
  const { M, N, K } = sizes;
  const strided = { rowGap: gap };
  return {
    op: "matmul",
    name: `${form} M=${M} N=${N} K=${K} ${x} to ${c}${gap ? " strided" : ""}`,
    args: {
      c: out(c, [M, N], strided),
      a: normal(x, form === "tn" ? [K, M] : [M, K], strided),
      b: normal(x, form === "nt" ? [N, K] : [K, N], strided),
      form,
    },
    reference: (v) => ({ c: reference(v.matrix("a"), v.matrix("b"), form).data }),
    bytes: (M * K + K * N) * sizeOf(x) + M * N * sizeOf(c),
    flops: 2 * M * N * K,
  };
}

const DTYPES = [
  { x: "f32", c: "f32" },
  { x: "bf16", c: "f32" },
  { x: "bf16", c: "bf16" },
] as const;

export const matmul: readonly OpCase[] = product({
  sizes: SIZES,
  form: MATMUL_FORMS,
  dtypes: DTYPES,
}).flatMap(({ sizes, form, dtypes: { x, c } }) => [
  matmulCase(sizes, form, x, c, 0),
  ...(sizes.K === 65 ? [matmulCase(sizes, form, x, c, 3)] : []),
]);

export const matmulAdd: readonly OpCase[] = product({
  sizes: SIZES,
  form: MATMUL_FORMS,
  x: ["f32", "bf16"] as const,
}).map(({ sizes, form, x }) => {
  const plain = matmulCase(sizes, form, x, "f32", 0);
  return {
    ...plain,
    op: "matmulAdd",
    args: { ...plain.args, c: update("f32", [sizes.M, sizes.N]) },
    reference: (v) => ({
      c: add(v.array("c"), reference(v.matrix("a"), v.matrix("b"), form).data),
    }),
    bytes: plain.bytes + 4 * sizes.M * sizes.N,
  };
});
