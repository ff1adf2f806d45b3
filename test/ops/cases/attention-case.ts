import { sizeOf } from "#src/native/index.js";
import { derived, gaussian, given, type OpCase, out, scratch } from "../harness/case.js";
import type { Layout } from "../harness/packing.js";
import type { Random } from "../harness/random.js";
import type { Values } from "../harness/values.js";
import {
  attentionBackward as backward,
  attentionForward as forward,
  type Segment,
  segmentsOf,
  visibleKeys,
} from "../reference/attention.js";

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

/** The head shape of a case. */
export interface Heads {
  readonly H: number;
  readonly K: number;
  readonly D: number;
  readonly dtype: "f32" | "bf16";
}

/** Scores a row computes per head, summed over rows: what the flops are counted from. */
function visiblePairs({ segments }: Layout, window: number): number {
  let pairs = 0;
  for (const segment of segments) {
    for (let t = segment.start; t < segment.end; t++) {
      pairs += visibleKeys(segment, t, window).length;
    }
  }
  return pairs;
}

export const forwardOf = (v: Values) =>
  forward(
    v.matrix("qkv"),
    segmentsOf(v.array("segments")),
    v.scalar("heads"),
    v.scalar("kvHeads"),
    v.scalar("window"),
  );

function nameOf(layout: Layout, { H, K, D, dtype }: Heads, window: number): string {
  return `H=${H} K=${K} D=${D} ${dtype}${window > 0 ? ` window=${window}` : ""}: ${layout.name}`;
}

function table(segments: readonly Segment[]) {
  const rows = segments.flatMap((s) => [s.start, s.end, s.prefixStart, s.prefixEnd]);
  return given("i32", [segments.length, 4], rows);
}

/** One call of attention_forward on this batch; window 0 is none. */
export function forwardCase(layout: Layout, shape: Heads, window = 0): OpCase {
  const { H, K, D, dtype } = shape;
  const { T, segments } = layout;
  const W = (H + 2 * K) * D;
  return {
    op: "attentionForward",
    name: nameOf(layout, shape, window),
    args: {
      o: out(dtype, [T, H * D]),
      lse: out("f32", [T, H]),
      qkv: given(dtype, [T, W], fillVisible(layout, W)),
      segments: table(segments),
      heads: H,
      kvHeads: K,
      window,
    },
    reference: forwardOf,
    tolerance: { lse: { absolute: 1e-5 } }, // scores are a few units, f32 has 1e-7 of them
    bytes: T * (W + H * D) * sizeOf(dtype) + 4 * T * H,
    flops: 4 * visiblePairs(layout, window) * H * D,
  };
}

/** One call of attention_backward on this batch, after the reference's forward. */
export function backwardCase(layout: Layout, heads: Heads, window = 0): OpCase {
  const { H, K, D, dtype } = heads;
  const { T, segments } = layout;
  const W = (H + 2 * K) * D;
  return {
    op: "attentionBackward",
    name: nameOf(layout, heads, window),
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
      window,
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
        window,
      ),
    }),
    bytes: T * (2 * W + 2 * H * D) * sizeOf(dtype) + 8 * T * H,
    flops: 10 * visiblePairs(layout, window) * H * D,
  };
}
