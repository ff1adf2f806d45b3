import type { Segment } from "../reference/attention.js";

/** A packed batch: some rows belong to segments, the others to nobody. */
export interface Layout {
  readonly name: string;
  readonly T: number;
  readonly segments: readonly Segment[];
}

/** Pairs one after another, each three segments that share the prompt; `gap` rows of nobody after each. */
export function packPairs(pairs: readonly (readonly number[])[], gap: number): Layout {
  const segments: Segment[] = [];
  let t = 0;
  for (const [prompt = 0, chosen = 0, rejected = 0] of pairs) {
    const prefix = { prefixStart: t, prefixEnd: t + prompt };
    segments.push({ start: t, end: t + prompt, prefixStart: t, prefixEnd: t });
    t += prompt;
    for (const length of [chosen, rejected]) {
      segments.push({ start: t, end: t + length, ...prefix });
      t += length;
    }
    t += gap;
  }
  return { name: pairs.map((pair) => pair.join("+")).join(", "), T: t, segments };
}
