import type { Config } from "../config/schema.js";
import { epochOrder } from "../data/order.js";
import type { BatchLimits } from "./buffers.js";
import type { ExampleSet } from "./examples.js";

/** The prompts that are answered at every evaluation. */
export interface SamplePrompts {
  readonly prompts: readonly { readonly example: number; readonly prompt: Int32Array }[];
  readonly maxNewTokens: number;
  /** Positions that the longest of them needs with its answer; 0: there are none. */
  readonly positions: number;
}

/** Most prompts that are answered together. */
const ROWS = 32;
/** An epoch that no run reaches: its permutation is free for this choice. */
const CHOICE = 2 ** 31;

/** A part of the test split that depends on the seed alone, in its order; pairs without a prompt are left out. */
export function chooseSamples(
  config: Config,
  { count, parts }: Pick<ExampleSet, "count" | "parts">,
): SamplePrompts {
  const { generateDuringEval, generatePrompts, generateMaxNewTokens: maxNewTokens, seed } = config;
  const prompts: { example: number; prompt: Int32Array }[] = [];
  if (generateDuringEval && parts) {
    for (const example of epochOrder({ count, perStep: 1, shuffle: true, seed }, CHOICE)) {
      if (prompts.length === generatePrompts) break;
      const { prompt } = parts(example);
      if (prompt.length > 0) prompts.push({ example, prompt });
    }
  }
  prompts.sort((a, b) => a.example - b.example);
  const longest = prompts.reduce((most, { prompt }) => Math.max(most, prompt.length), 0);
  return { prompts, maxNewTokens, positions: longest > 0 ? longest + maxNewTokens : 0 };
}

/** Where prompts lie in the key/value cache: batches that the buffers of training hold, and the rows of the largest. */
export function sampleBatches(
  { prompts, maxNewTokens }: SamplePrompts,
  limits: Pick<BatchLimits, "examples">,
) {
  // Each prompt is a response of its batch; a micro-batch of pairs has two for each.
  const together = Math.min(ROWS, 2 * limits.examples);
  const batches: { example: number; prompt: Int32Array; cache: number }[][] = [];
  let cacheRows = 0;
  for (let begin = 0; begin < prompts.length; begin += together) {
    let cache = 0;
    const batch = prompts.slice(begin, begin + together).map((entry) => {
      const placed = { ...entry, cache };
      cache += entry.prompt.length + maxNewTokens;
      return placed;
    });
    batches.push(batch);
    cacheRows = Math.max(cacheRows, cache);
  }
  return { batches, cacheRows };
}
