import type { OpCase } from "../harness/case.js";
import { packPairs } from "../harness/packing.js";
import { backwardCase, forwardCase, type Heads } from "./attention-case.js";
import { allCases } from "./index.js";

// What a race detector that is a hundred times slower than the kernels gets through. Not part of allCases.

// No row, one row, a row less and more than a tensor core's 16, more than one tile and one warp's rows.
const LENGTHS = [0, 1, 15, 17, 33, 65];

/** Every two of prompt, chosen and rejected take every two lengths in one of these pairs. */
const PAIRS = LENGTHS.flatMap((prompt, i) =>
  LENGTHS.map((chosen, j) => [prompt, chosen, LENGTHS[(i + j) % LENGTHS.length]!]),
);

// Every head dim that has tiles of its own, one that has none, and a shared key head.
const HEADS: readonly Heads[] = [
  { H: 2, K: 1, D: 64, dtype: "bf16" },
  { H: 1, K: 1, D: 96, dtype: "bf16" },
  { H: 1, K: 1, D: 128, dtype: "bf16" },
  { H: 2, K: 1, D: 64, dtype: "f32" },
  { H: 1, K: 1, D: 24, dtype: "bf16" },
  { H: 1, K: 1, D: 128, dtype: "f32" },
];

/** The pairs three to a batch, the head shapes in turn; apart from a case's rows, the next one's are NaN. */
const BATCHES = Array.from({ length: PAIRS.length / 3 }, (_, i) => ({
  layout: packPairs(
    PAIRS.filter((_, n) => n % (PAIRS.length / 3) === i),
    1,
  ),
  heads: HEADS[i % HEADS.length]!,
}));

/** A window on every second batch: one key, less than a tile, most of a row's keys. */
const WINDOWED = BATCHES.filter((_, i) => i % 2 === 1).map((batch, i) => ({
  ...batch,
  window: [1, 20, 70][i % 3]!,
}));

const MAX_BYTES = 40_000;

/** A pairwise cover of small lengths for attention, and what is small already of everything else. */
export function smallCases(): OpCase[] {
  const covered = ["attentionForward", "attentionBackward"];
  const others = allCases.filter(({ op, bytes }) => !covered.includes(op) && bytes < MAX_BYTES);
  return [
    ...BATCHES.map(({ layout, heads }) => forwardCase(layout, heads)),
    ...BATCHES.map(({ layout, heads }) => backwardCase(layout, heads)),
    ...WINDOWED.map(({ layout, heads, window }) => forwardCase(layout, heads, window)),
    ...WINDOWED.map(({ layout, heads, window }) => backwardCase(layout, heads, window)),
    ...others,
  ];
}
