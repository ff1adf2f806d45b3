import assert from "node:assert/strict";
import type { Tokenizer } from "#src/data/tokenizer.js";
import type { TokenizedSequence } from "#src/data/types.js";

export const BOS = 1;
export const EOS = 2;
export const MERGED = 1000;

/** One id per character, its code; `merges` are strings that become one token, the longest first. */
export function characters(
  options: { merges?: string[]; bos?: boolean; eos?: boolean; addsBos?: boolean } = {},
): Tokenizer {
  const { merges = [], bos = true, eos = true, addsBos = bos } = options;
  const tokens: [string, number][] = [
    ["<s>", BOS],
    ["</s>", EOS],
    ...merges.map((text, i): [string, number] => [text, MERGED + i]),
  ];
  tokens.sort((a, b) => b[0].length - a[0].length);
  return {
    encode(text, { addSpecialTokens }) {
      const ids: number[] = addSpecialTokens && addsBos ? [BOS] : [];
      for (let at = 0; at < text.length; ) {
        const token = tokens.find(([piece]) => text.startsWith(piece, at));
        ids.push(token?.[1] ?? text.charCodeAt(at));
        at += token?.[0].length ?? 1;
      }
      return ids;
    },
    decode: () => assert.fail("nothing is decoded here"),
    bos: bos ? { text: "<s>", id: BOS } : null,
    eos: eos ? { text: "</s>", id: EOS } : null,
    addsBos,
    padId: EOS,
    specialTokens: {},
    notices: [],
  };
}

export const codes = (text: string): number[] => Array.from(text, (c) => c.charCodeAt(0));

/** Ids before and from the first label. */
export function split({ ids, labels }: TokenizedSequence): {
  prompt: number[];
  response: number[];
} {
  const first = labels.findIndex((label) => label !== -100);
  const at = first < 0 ? ids.length : first;
  assert.deepEqual(Array.from(labels.subarray(at)), Array.from(ids.subarray(at)));
  return { prompt: Array.from(ids.subarray(0, at)), response: Array.from(ids.subarray(at)) };
}
