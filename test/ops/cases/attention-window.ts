import type { OpCase } from "../harness/case.js";
import { product } from "../harness/case.js";
import { type Layout, packPairs } from "../harness/packing.js";
import type { Values } from "../harness/values.js";
import { dot } from "../reference/matrix.js";
import { backwardCase, forwardCase, forwardOf, type Heads } from "./attention-case.js";

// Attention in a sliding window: of what a row sees without one, the last keys.

const HEADS: readonly Heads[] = product({
  dtype: ["f32", "bf16"] as const,
  heads: [
    { H: 2, K: 2, D: 64 },
    { H: 3, K: 1, D: 24 },
    { H: 4, K: 1, D: 128 },
    { H: 8, K: 1, D: 16 },
    { H: 4, K: 2, D: 96 },
  ],
}).map(({ dtype, heads }) => ({ dtype, ...heads }));

const LAYOUTS: readonly Layout[] = [
  packPairs([[129, 65, 17]], 1),
  packPairs(
    [
      [70, 33, 65],
      [0, 40, 31],
    ],
    2,
  ),
  packPairs([[15, 130, 1]], 0),
  packPairs(
    [
      [64, 64, 64],
      [1, 16, 127],
    ],
    3,
  ),
];

// Itself alone; around tiles and vectors; 65, 129 and 194 are a segment, a prefix and both together; then more
// than anything, and more than 32 bits hold.
const WINDOWS = [1, 2, 16, 63, 64, 65, 129, 194, 1000, 2 ** 40];

/** Every head shape has every second window, every window every layout. */
const BATCHES = HEADS.flatMap((heads, i) =>
  WINDOWS.flatMap((window, j) => {
    if ((i + j) % 2 !== 0) return [];
    return [{ heads, window, layout: LAYOUTS[((i + j) / 2 + i) % LAYOUTS.length]! }];
  }),
);

const OTHERS: readonly { layout: Layout; heads: Heads; window: number }[] = [
  // Many key tiles, most of which no query tile sees.
  ...(["f32", "bf16"] as const).map((dtype) => ({
    layout: packPairs([[400, 300, 20]], 0),
    heads: { H: 4, K: 2, D: 64, dtype },
    window: 70,
  })),
  // The window reaches from a segment far down the rows to a prefix that is nobody's own, and past it.
  ...[3, 30, 80].map((window) => ({
    layout: {
      name: "prefix outside all segments",
      T: 120,
      segments: [
        { start: 70, end: 90, prefixStart: 0, prefixEnd: 66 },
        { start: 90, end: 119, prefixStart: 0, prefixEnd: 66 },
      ],
    },
    heads: { H: 4, K: 2, D: 16, dtype: "f32" as const },
    window,
  })),
  // The order of the table says nothing about the order of the rows; a prefix may lie behind its segment.
  ...[1, 10, 25].map((window) => ({
    layout: {
      name: "segments out of order",
      T: 60,
      segments: [
        { start: 0, end: 20, prefixStart: 40, prefixEnd: 60 },
        { start: 40, end: 60, prefixStart: 40, prefixEnd: 40 },
        { start: 20, end: 40, prefixStart: 45, prefixEnd: 60 },
      ],
    },
    heads: { H: 6, K: 2, D: 16, dtype: "f32" as const },
    window,
  })),
];

const ALL = [...BATCHES, ...OTHERS];

export const attentionForwardWindow: readonly OpCase[] = ALL.map(({ layout, heads, window }) =>
  forwardCase(layout, heads, window),
);

export const attentionBackwardWindow: readonly OpCase[] = [
  ...ALL.map(({ layout, heads, window }) => backwardCase(layout, heads, window)),
  ...product({ window: [1, 3, 8], K: [1, 2] }).map(({ window, K }) => ({
    ...backwardCase(
      packPairs(
        [
          [5, 4, 6],
          [0, 3, 2],
        ],
        0,
      ),
      { H: 4, K, D: 6, dtype: "f32" },
      window,
    ),
    gradient: {
      of: { dQkv: "qkv" },
      loss: (v: Values) => dot(forwardOf(v).o, v.array("dO")),
    },
  })),
];
