import { normal, type OpCase, product } from "../harness/case.js";
import { type Layout, packPairs } from "../harness/packing.js";
import type { Values } from "../harness/values.js";
import type { Segment } from "../reference/attention.js";
import { dot } from "../reference/matrix.js";
import { backwardCase, forwardCase, forwardOf, type Heads } from "./attention-case.js";

// Around the sizes of tiles and vectors, and the empty ones.
const LENGTHS = [0, 1, 15, 16, 17, 63, 64, 65, 127, 129];

/** Every two of prompt, chosen and rejected take every two lengths in one of these pairs. */
const PAIRS = product({ i: [...LENGTHS.keys()], j: [...LENGTHS.keys()] }).map(({ i, j }) => [
  LENGTHS[i]!,
  LENGTHS[j]!,
  LENGTHS[(i + j) % LENGTHS.length]!,
]);

// Sharing ratios 1, 3, 4 and 8; head dims that fill vectors and tiles, and those that do not.
const HEADS: readonly Heads[] = product({
  dtype: ["f32", "bf16"] as const,
  D: [16, 24, 64, 96, 128],
  heads: [
    { H: 2, K: 2 },
    { H: 3, K: 1 },
    { H: 4, K: 1 },
    { H: 8, K: 1 },
  ],
}).map(({ dtype, D, heads }) => ({ dtype, D, ...heads }));

/** The hundred pairs dealt out to the head shapes, two or three to a batch. */
const BATCHES = HEADS.map((heads, i) => ({
  heads,
  layout: packPairs(
    PAIRS.filter((_, n) => n % HEADS.length === i),
    1 + (i % 3),
  ),
}));

const plain = (start: number, end: number): Segment => ({
  start,
  end,
  prefixStart: start,
  prefixEnd: start,
});

const OTHERS: readonly { layout: Layout; heads: Heads }[] = [
  ...product({ dtype: ["f32", "bf16"] as const, prompt: [0, 120] }).map(({ dtype, prompt }) => ({
    layout: packPairs([[prompt, 300, 20]], 0),
    heads: { H: 4, K: 2, D: 64, dtype },
  })),
  // Sequences packed one by one, and a batch with rows but no segment at all.
  {
    layout: {
      name: "plain sequences",
      T: 98,
      segments: [plain(0, 33), plain(33, 34), plain(40, 97)],
    },
    heads: { H: 4, K: 4, D: 32, dtype: "f32" },
  },
  {
    layout: { name: "no segment", T: 20, segments: [] },
    heads: { H: 4, K: 2, D: 16, dtype: "f32" },
  },
  { layout: { name: "no row", T: 0, segments: [] }, heads: { H: 4, K: 2, D: 16, dtype: "bf16" } },
  // A prefix that is nobody's own segment is seen, but gets no gradient.
  {
    layout: {
      name: "prefix outside all segments",
      T: 120,
      segments: [
        { start: 70, end: 90, prefixStart: 0, prefixEnd: 66 },
        { start: 90, end: 119, prefixStart: 0, prefixEnd: 66 },
      ],
    },
    heads: { H: 4, K: 2, D: 16, dtype: "f32" },
  },
  // A prefix inside its own segment: its keys count twice, and get both gradients.
  {
    layout: {
      name: "prefix inside its segment",
      T: 150,
      segments: [{ start: 0, end: 150, prefixStart: 10, prefixEnd: 90 }],
    },
    heads: { H: 2, K: 1, D: 16, dtype: "f32" },
  },
  // The order of the table says nothing about the order of the rows.
  {
    layout: {
      name: "segments out of order",
      T: 60,
      segments: [
        { start: 40, end: 60, prefixStart: 0, prefixEnd: 20 },
        plain(0, 20),
        { start: 20, end: 40, prefixStart: 0, prefixEnd: 20 },
      ],
    },
    heads: { H: 6, K: 2, D: 16, dtype: "f32" },
  },
];

const ALL = [...BATCHES, ...OTHERS];

export const attentionForward: readonly OpCase[] = ALL.map(({ layout, heads }) =>
  forwardCase(layout, heads),
);

const GRADIENT_HEADS: readonly Heads[] = [
  { H: 4, K: 2, D: 6, dtype: "f32" },
  { H: 3, K: 1, D: 16, dtype: "f32" },
];

export const attentionBackward: readonly OpCase[] = [
  ...ALL.map(({ layout, heads }) => backwardCase(layout, heads)),
  ...GRADIENT_HEADS.map((heads) => ({
    ...backwardCase(
      packPairs(
        [
          [5, 4, 6],
          [0, 3, 2],
        ],
        0,
      ),
      heads,
    ),
    gradient: {
      of: { dQkv: "qkv" },
      loss: (v: Values) => dot(forwardOf(v).o, v.array("dO")),
    },
  })),
];

// Scores of ±60: the softmax is all but one-hot, and exp overflows unless the maximum goes first.
export const attentionSharp: readonly OpCase[] = (["f32", "bf16"] as const).map((dtype) => {
  const sharp = forwardCase(packPairs([[30, 20, 25]], 2), { H: 4, K: 2, D: 16, dtype });
  return {
    ...sharp,
    name: `large scores ${dtype}`,
    args: { ...sharp.args, qkv: normal(dtype, [77, 128], { scale: 6 }) },
    tolerance: {
      o: { relative: dtype === "f32" ? 1e-4 : 4e-3 }, // exp multiplies the rounding of a score by the score
      lse: { absolute: 1e-4 }, // one part in 1e6 of a score
    },
  };
});
