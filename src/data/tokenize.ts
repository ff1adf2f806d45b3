import { DataError } from "../errors.js";
import type { SpecialToken, Tokenizer } from "./tokenizer.js";
import { IGNORE, type TokenizedPair, type TokenizedSequence } from "./types.js";

/** Length limits of the reference's trainer, in tokens. */
export interface Limits {
  readonly maxLength: number;
  readonly maxPromptLength: number;
  readonly truncationMode: "keep_end" | "keep_start";
}

/** A part of a row that lost tokens to the limits. `prompt`: the prompt of either side. */
export type Truncated = "prompt" | "chosen" | "rejected";

/** The ids of one side of a pair, still apart. */
export interface Parts {
  prompt: number[];
  response: number[];
}

/** The tokenizer's EOS. @throws DataError naming the row when there is none. */
export function requireEos({ eos }: Tokenizer, where: string): SpecialToken {
  if (eos !== null) return eos;
  throw new DataError(`${where}: expected a tokenizer with an eos_token, found none`, {
    hint: "name the end-of-sequence token in tokenizer_config.json",
  });
}

/**
 * Splits the ids of `prompt + response` at the prompt's end. Where a merge crosses the border the last
 * token of the prompt differs, and the border moves back by one token. [seed.md A.5, steps 1 and 2]
 */
function splitAtPrompt(
  tokenizer: Tokenizer,
  promptIds: readonly number[],
  text: string,
  where: string,
  side: string,
): Parts {
  const full = tokenizer.encode(text, { addSpecialTokens: false });
  if (promptIds.length > full.length) {
    throw new DataError(
      `${where}: ${side}: the prompt alone has ${promptIds.length} tokens, the prompt with its response ` +
        `only ${full.length}`,
      { hint: "end the prompt where a token ends, for example before the space of the response" },
    );
  }
  const aligned = promptIds.every((id, i) => full[i] === id);
  const boundary = promptIds.length - (aligned ? 0 : 1);
  return { prompt: full.slice(0, boundary), response: full.slice(boundary) };
}

/** [A.5, step 3] The prompts may differ by one token at the border, not more. */
function checkPrompts(a: readonly number[], b: readonly number[], where: string): void {
  const common = Math.min(a.length, b.length);
  let different = 0;
  for (let i = 0; i < common; i++) if (a[i] !== b[i]) different += 1;
  const lengths = Math.abs(a.length - b.length);
  if (different > 1 || lengths > 1) {
    throw new DataError(
      `${where}: tokenized with chosen and with rejected, the prompt differs in ${different} tokens and ` +
        `by ${lengths} in length; expected at most one of each`,
      { hint: "end the prompt where a token ends, for example with a newline" },
    );
  }
}

/** Labels: the prompt is not scored, the response is. [A.5, step 7] */
export function joinParts({ prompt, response }: Parts): TokenizedSequence {
  const ids = Int32Array.from([...prompt, ...response]);
  const labels = ids.slice();
  labels.fill(IGNORE, 0, prompt.length);
  return { ids, labels };
}

/**
 * Tokenizes a pair by the rules of the reference, bit for bit. [seed.md A.5]
 *
 * Prompt and response are tokenized together and split again; BOS is put before a prompt that does not
 * start with it (if the tokenizer has one) and EOS after a response that does not end with it. A pair
 * is too long when its prompt and the longer of its responses exceed `maxLength`: then the prompt keeps
 * `maxPromptLength` tokens, and if that does not do, each response its first
 * `maxLength - maxPromptLength`. The longer response is measured once, before anything is cut.
 *
 * Throws `DataError` naming `where` when the prompt cannot be told from a response.
 */
export function tokenizePair(
  tokenizer: Tokenizer,
  text: { readonly prompt: string; readonly chosen: string; readonly rejected: string },
  limits: Limits,
  where: string,
): TokenizedPair & { readonly truncated: readonly Truncated[] } {
  const { bos } = tokenizer;
  const eos = requireEos(tokenizer, where);
  const promptIds = tokenizer.encode(text.prompt, { addSpecialTokens: false });
  const chosen = splitAtPrompt(tokenizer, promptIds, text.prompt + text.chosen, where, "chosen");
  const rejected = splitAtPrompt(
    tokenizer,
    promptIds,
    text.prompt + text.rejected,
    where,
    "rejected",
  );
  checkPrompts(chosen.prompt, rejected.prompt, where);

  for (const parts of [chosen, rejected]) {
    if (bos !== null && parts.prompt[0] !== bos.id) parts.prompt.unshift(bos.id);
    if (parts.response.at(-1) !== eos.id) parts.response.push(eos.id);
  }

  const { maxLength, maxPromptLength, truncationMode } = limits;
  const longer = Math.max(chosen.response.length, rejected.response.length);
  const truncated = new Set<Truncated>();
  for (const [side, parts] of [["chosen", chosen] as const, ["rejected", rejected] as const]) {
    const length = parts.prompt.length;
    if (length + longer > maxLength && length > maxPromptLength) {
      parts.prompt =
        truncationMode === "keep_end"
          ? parts.prompt.slice(-maxPromptLength)
          : parts.prompt.slice(0, maxPromptLength);
      truncated.add("prompt");
    }
    if (parts.prompt.length + longer > maxLength) {
      const room = maxLength - maxPromptLength;
      // The reference would slice with a negative length here and train on nonsense.
      if (room < 0) {
        throw new DataError(
          `${where}: ${length} + ${longer} tokens do not fit max_length ${maxLength}, and ` +
            `max_prompt_length ${maxPromptLength} leaves no room for a response`,
          { hint: "set max_prompt_length below max_length" },
        );
      }
      if (parts.response.length > room) {
        parts.response.length = room;
        truncated.add(side);
      }
    }
  }
  const order: Truncated[] = ["prompt", "chosen", "rejected"];
  return {
    chosen: joinParts(chosen),
    rejected: joinParts(rejected),
    truncated: order.filter((part) => truncated.has(part)),
  };
}

/** True when a token of the sequence is scored; label 0 never is, because nothing precedes it. */
export function hasScoredToken({ labels }: TokenizedSequence): boolean {
  for (let i = 1; i < labels.length; i++) if (labels[i] !== IGNORE) return true;
  return false;
}

/**
 * Tokenizes text for next-token training: every token is a label and the first `maxLength` are kept.
 *
 * `conversation`: text rendered by a chat template, which places special tokens itself. Otherwise plain
 * text: EOS is appended unless the text ends with it, and the tokenizer's post-processor adds what it
 * adds (usually BOS), as TRL's SFTTrainer does.
 */
export function tokenizeText(
  tokenizer: Tokenizer,
  text: string,
  options: { readonly conversation: boolean; readonly maxLength: number },
): { readonly sequence: TokenizedSequence; readonly truncated: boolean } {
  const { eos } = tokenizer;
  let whole = text;
  if (!options.conversation && eos !== null && !text.endsWith(eos.text)) whole += eos.text;
  const all = tokenizer.encode(whole, { addSpecialTokens: !options.conversation });
  const ids = Int32Array.from(all.slice(0, options.maxLength));
  return { sequence: { ids, labels: ids.slice() }, truncated: all.length > ids.length };
}
