import { ConfigError } from "../errors.js";
import type { DataFacts } from "./plan.js";

/** Pairs of one length that stand for data that are not there: `count` times prompt + chosen + rejected tokens. */
export interface AssumedPairs {
  /** How many pairs. */
  readonly count: number;
  /** Tokens of a prompt. */
  readonly prompt: number;
  /** Tokens of a chosen answer. */
  readonly chosen: number;
  /** Tokens of a rejected answer. */
  readonly rejected: number;
}

/** Bytes that a stored pair takes per token: ids and labels. */
const BYTES_PER_TOKEN = 8;

/**
 * Reads `60000x120+300+300`: 60,000 pairs of a prompt of 120 tokens and responses of 300.
 * @throws ConfigError
 */
export function parseAssumedPairs(text: string): AssumedPairs {
  const match = /^(\d+)x(\d+)\+(\d+)\+(\d+)$/.exec(text);
  const [count = 0, prompt = 0, chosen = 0, rejected = 0] = match?.slice(1).map(Number) ?? [];
  if (match && Math.min(count, prompt, chosen, rejected) > 0)
    return { count, prompt, chosen, rejected };
  throw new ConfigError(
    `--assume: expected pairs x prompt + chosen + rejected tokens, all above 0, received "${text}"`,
    { hint: "such as 60000x120+300+300" },
  );
}

/** What a plan needs to know of data, of such pairs; prompts are computed once unless `prefixSharing` is off. */
export function assumedData(pairs: AssumedPairs, prefixSharing: boolean): DataFacts {
  const { count, prompt, chosen, rejected } = pairs;
  const tokens = (prefixSharing ? prompt : 2 * prompt) + chosen + rejected;
  const stored = 2 * prompt + chosen + rejected;
  return {
    count,
    bytes: count * stored * BYTES_PER_TOKEN,
    computedTokens: new Int32Array(count).fill(tokens),
    scoredTokens: new Int32Array(count).fill(chosen + rejected),
    longestSequence: prompt + Math.max(chosen, rejected),
    where: (i) => `assumed pair ${i}`,
  };
}

/** No data: the test split of assumed ones. */
export const noData: DataFacts = {
  count: 0,
  bytes: 0,
  computedTokens: new Int32Array(0),
  scoredTokens: new Int32Array(0),
  longestSequence: 0,
  where: (i) => `example ${i}`,
};
