import { sizeOf } from "#src/native/index.js";
import {
  derived,
  gaussian,
  given,
  normal,
  type OpCase,
  out,
  product,
  scratch,
} from "../harness/case.js";
import { type Layout, packPairs } from "../harness/packing.js";
import type { Random } from "../harness/random.js";
import type { Values } from "../harness/values.js";
import {
  attentionBackward as backward,
  attentionForward as forward,
  type Segment,
  segmentsOf,
} from "../reference/attention.js";
import { dot } from "../reference/matrix.js";

// Around the sizes of tiles and vectors, and the empty ones.
const LENGTHS = [0, 1, 15, 16, 17, 63, 64, 65, 127, 129];

/** Every two of prompt, chosen and rejected take every two lengths in one of these pairs. */
const PAIRS = product({ i: [...LENGTHS.keys()], j: [...LENGTHS.keys()] }).map(({ i, j }) => [
  LENGTHS[i]!,
  LENGTHS[j]!,
  LENGTHS[(i + j) % LENGTHS.length]!,
]);

/** NaN in the rows that nobody computes or sees: a kernel that looks at them cannot hide it. */
function fillVisible({ T, segments }: Layout, columns: number) {
  return (random: Random, elements: number) => {
    const values = gaussian(1)(random, elements) as Float64Array;
    for (let t = 0; t < T; t++) {
      if (segments.some((s) => isWithin(t, s.start, s.end))) continue;
      if (segments.some((s) => isWithin(t, s.prefixStart, s.prefixEnd))) continue;
      values.fill(Number.NaN, t * columns, (t + 1) * columns);
    }
    return values;
  };
}

function isWithin(t: number, begin: number, end: number): boolean {
  return begin <= t && t < end;
}

interface Heads {
  readonly H: number;
  readonly K: number;
  readonly D: number;
  readonly dtype: "f32" | "bf16";
}

/** Scores a row computes per head, summed over rows: what the flops are counted from. */
function visiblePairs({ segments }: Layout): number {
  return segments.reduce((sum, { start, end, prefixStart, prefixEnd }) => {
    const n = end - start;
    return sum + n * (prefixEnd - prefixStart) + (n * (n + 1)) / 2;
  }, 0);
}

const forwardOf = (v: Values) =>
  forward(v.matrix("qkv"), segmentsOf(v.array("segments")), v.scalar("heads"), v.scalar("kvHeads"));

function table(segments: readonly Segment[]) {
  const rows = segments.flatMap((s) => [s.start, s.end, s.prefixStart, s.prefixEnd]);
  return given("i32", [segments.length, 4], rows);
}

function forwardCase(layout: Layout, { H, K, D, dtype }: Heads): OpCase {
  const { T, segments } = layout;
  const W = (H + 2 * K) * D;
  return {
    op: "attentionForward",
    name: `H=${H} K=${K} D=${D} ${dtype}: ${layout.name}`,
    args: {
      o: out(dtype, [T, H * D]),
      lse: out("f32", [T, H]),
      qkv: given(dtype, [T, W], fillVisible(layout, W)),
      segments: table(segments),
      heads: H,
      kvHeads: K,
    },
    reference: forwardOf,
    tolerance: { lse: { absolute: 1e-5 } }, // scores are a few units, f32 has 1e-7 of them
    bytes: T * (W + H * D) * sizeOf(dtype) + 4 * T * H,
    flops: 4 * visiblePairs(layout) * H * D,
  };
}

function backwardCase(layout: Layout, heads: Heads): OpCase {
  const { H, K, D, dtype } = heads;
  const { T, segments } = layout;
  const W = (H + 2 * K) * D;
  return {
    op: "attentionBackward",
    name: `H=${H} K=${K} D=${D} ${dtype}: ${layout.name}`,
    args: {
      dQkv: out(dtype, [T, W]),
      delta: scratch("f32", [T, H]),
      dO: given(dtype, [T, H * D], fillVisible(layout, H * D)),
      o: derived(dtype, [T, H * D]),
      lse: derived("f32", [T, H]),
      qkv: given(dtype, [T, W], fillVisible(layout, W)),
      segments: table(segments),
      heads: H,
      kvHeads: K,
    },
    derive: forwardOf,
    reference: (v) => ({
      dQkv: backward(
        v.array("dO"),
        v.array("o"),
        v.array("lse"),
        v.matrix("qkv"),
        segmentsOf(v.array("segments")),
        H,
        K,
      ),
    }),
    bytes: T * (2 * W + 2 * H * D) * sizeOf(dtype) + 8 * T * H,
    flops: 10 * visiblePairs(layout) * H * D,
  };
}

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
