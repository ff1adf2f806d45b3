import type { PairTexts } from "./render.js";
import { joinParts, type Limits, type Parts, requireEos, type Truncated } from "./tokenize.js";
import type { Tokenizer } from "./tokenizer.js";
import type { TokenizedPair } from "./types.js";

/** Number of ids that two lists have in common at their beginning. */
function common(a: readonly number[], b: readonly number[]): number {
  const shorter = Math.min(a.length, b.length);
  let length = 0;
  while (length < shorter && a[length] === b[length]) length += 1;
  return length;
}

/** Splits `prompt + response`, tokenized as one text; a token that holds the border belongs to the response. */
function split(tokenizer: Tokenizer, promptIds: readonly number[], text: string): Parts {
  const full = tokenizer.encode(text, { addSpecialTokens: false });
  const border = common(promptIds, full);
  return { prompt: full.slice(0, border), response: full.slice(border) };
}

/** A BOS in front where the tokenizer itself puts one, and never two. */
function openWithBos({ prompt, response }: Parts, { bos, addsBos }: Tokenizer): void {
  if (bos === null) return;
  if (prompt.length === 0 && response[0] === bos.id) {
    response.shift();
    prompt.push(bos.id);
  } else if (addsBos && prompt[0] !== bos.id) {
    prompt.unshift(bos.id);
  }
}

/** Exactly one EOS at the end. */
function endWithEos(response: number[], eos: number): void {
  while (response.at(-1) === eos) response.pop();
  response.push(eos);
}

/** 1 where the first id is a BOS; a token that also occurs later, as `<|im_start|>` of SmolLM2 does, opens turns. */
function bosLength(prompt: readonly number[], { bos, addsBos }: Tokenizer): number {
  if (bos === null || prompt[0] !== bos.id) return 0;
  return addsBos || prompt.lastIndexOf(bos.id) === 0 ? 1 : 0;
}

/**
 * Takes `count` ids out of a prompt: behind BOS (`keep_end`), or before the `opening` ids of the generation prompt
 * (`keep_start`), of which it takes the first where nothing else is left.
 */
function cutPrompt(
  parts: Parts,
  count: number,
  mode: Limits["truncationMode"],
  bos: number,
  opening: number,
): void {
  const latest = Math.max(bos, parts.prompt.length - opening - count);
  parts.prompt.splice(mode === "keep_end" ? bos : latest, count);
}

/**
 * Tokenizes a pair by the rules of `data_semantics: corrected`, see docs/data-semantics.md.
 *
 * With n the longer of the two responses, EOS included, and p the longer of the two prompts, BOS included: where
 * `p + n > maxLength` both prompts lose the same `p + n - maxLength` ids, but keep one (BOS where there is one). Only
 * where that does not do is a response cut to what is left of `maxLength`, and then it has no EOS.
 *
 * @param text `opening`: characters of the generation prompt at the end of `prompt`; `keep_start` keeps them
 */
export function tokenizeCorrected(
  tokenizer: Tokenizer,
  text: PairTexts & { readonly opening?: number },
  limits: Pick<Limits, "maxLength" | "truncationMode">,
  where: string,
): TokenizedPair & { readonly truncated: readonly Truncated[] } {
  const eos = requireEos(tokenizer, where);
  const encode = (part: string): number[] => tokenizer.encode(part, { addSpecialTokens: false });
  const promptIds = encode(text.prompt);
  const sides = {
    chosen: split(tokenizer, promptIds, text.prompt + text.chosen),
    rejected: split(tokenizer, promptIds, text.prompt + text.rejected),
  };
  for (const parts of [sides.chosen, sides.rejected]) {
    openWithBos(parts, tokenizer);
    endWithEos(parts.response, eos.id);
  }

  const longest = (part: keyof Parts): number =>
    Math.max(sides.chosen[part].length, sides.rejected[part].length);
  const excess = longest("prompt") + longest("response") - limits.maxLength;
  const truncated: Truncated[] = [];
  if (excess > 0) {
    const opening = text.opening ?? 0;
    const plain = encode(text.prompt.slice(0, text.prompt.length - opening));
    const openingIds = opening === 0 ? 0 : promptIds.length - common(plain, promptIds);
    for (const side of ["chosen", "rejected"] as const) {
      const parts = sides[side];
      const count = Math.min(excess, Math.max(0, parts.prompt.length - 1));
      cutPrompt(
        parts,
        count,
        limits.truncationMode,
        bosLength(parts.prompt, tokenizer),
        openingIds,
      );
      if (count > 0 && !truncated.includes("prompt")) truncated.unshift("prompt");
      const room = limits.maxLength - parts.prompt.length;
      if (parts.response.length > room) {
        parts.response.length = room;
        truncated.push(side);
      }
    }
  }
  return { chosen: joinParts(sides.chosen), rejected: joinParts(sides.rejected), truncated };
}
