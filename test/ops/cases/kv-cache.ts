import { sizeOf } from "#src/native/index.js";
import { given, label, normal, type OpCase, out, product, update } from "../harness/case.js";
import { Random } from "../harness/random.js";
import { attentionDecode as decode } from "../reference/attention.js";
import type { Matrix } from "../reference/matrix.js";

const HEADS = product({
  dtype: ["f32", "bf16"] as const,
  D: [16, 24, 64, 128],
  heads: [
    { H: 2, K: 2 },
    { H: 3, K: 1 },
    { H: 8, K: 1 },
  ],
}).map(({ dtype, D, heads }) => ({ dtype, D, ...heads }));

/** The cache with the k (part 0) or v (part 1) heads of each row of qkv in its slot. */
function written(cache: Matrix, qkv: Matrix, slots: Float64Array, part: 0 | 1): Float64Array {
  const result = cache.data.slice();
  const W = cache.columns;
  slots.forEach((slot, t) => {
    if (slot < 0) return;
    const begin = (t + 1) * qkv.columns - (2 - part) * W;
    result.set(qkv.data.subarray(begin, begin + W), slot * W);
  });
  return result;
}

export const kvCacheWrite: readonly OpCase[] = HEADS.flatMap(({ H, K, D, dtype }) =>
  [0, 1, 37].map((T): OpCase => {
    const name = label({ T, H, K, D, dtype });
    const M = 60;
    const slots = new Random(`slots of ${name}`).permutation(M).slice(0, T);
    if (T > 5) slots[3] = slots[5] = -1; // rows that are not kept
    return {
      op: "kvCacheWrite",
      name,
      args: {
        kCache: update(dtype, [M, K * D]),
        vCache: update(dtype, [M, K * D]),
        qkv: normal(dtype, [T, (H + 2 * K) * D]),
        slots: given("i32", [T], slots),
        heads: H,
      },
      reference: (v) => ({
        kCache: written(v.matrix("kCache"), v.matrix("qkv"), v.array("slots"), 0),
        vCache: written(v.matrix("vCache"), v.matrix("qkv"), v.array("slots"), 1),
      }),
      tolerance: { kCache: "exact", vCache: "exact" }, // a copy
      bytes: 4 * T * K * D * sizeOf(dtype),
      flops: 0,
    };
  }),
);

/** Cache rows of four sequences; 129 is more than two tiles, 0 a sequence that has ended. */
const RANGES = [
  [0, 129],
  [131, 1],
  [140, 64],
  [140, 0],
  [210, 17],
];

export const attentionDecode: readonly OpCase[] = HEADS.flatMap(({ H, K, D, dtype }) =>
  [0, 1, RANGES.length].map((T): OpCase => {
    const M = 230;
    const ranges = RANGES.slice(0, T);
    // NaN in every cache row that no range covers.
    const cache = given(dtype, [M, K * D], (random, elements) => {
      const covered = (row: number) =>
        ranges.some(([begin = 0, length = 0]) => begin <= row && row < begin + length);
      return Float64Array.from({ length: elements }, (_, i) =>
        covered(Math.floor(i / (K * D))) ? random.normal() : Number.NaN,
      );
    });
    const keys = ranges.reduce((sum, [, length = 0]) => sum + length, 0);
    return {
      op: "attentionDecode",
      name: label({ T, H, K, D, dtype }),
      args: {
        o: out(dtype, [T, H * D]),
        qkv: normal(dtype, [T, (H + 2 * K) * D]),
        kCache: cache,
        vCache: cache,
        ranges: given("i32", [T, 2], ranges.flat()),
        heads: H,
      },
      reference: (v) => ({
        o: decode(v.matrix("qkv"), v.matrix("kCache"), v.matrix("vCache"), v.array("ranges"), H),
      }),
      bytes: 2 * keys * K * D * sizeOf(dtype),
      flops: 4 * keys * H * D,
    };
  }),
);
