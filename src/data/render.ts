import { DataError } from "../errors.js";
import { type ChatTemplate, wantsEmptySystemMessage } from "./chat.js";
import type { ConversationPair } from "./rows.js";
import type { Tokenizer } from "./tokenizer.js";
import type { Message } from "./types.js";

/** The three texts of a preference pair. */
export type PairTexts = Record<"prompt" | "chosen" | "rejected", string>;

/** How messages become text. */
export interface RenderOptions {
  readonly template: ChatTemplate;
  readonly tokenizer: Tokenizer;
  /** Start with an empty system message where the template knows them: auto_insert_empty_system_msg. */
  readonly insertSystem: boolean;
}

function promptTurns(
  row: ConversationPair,
  { template, insertSystem }: RenderOptions,
  semantics: "reference" | "corrected",
): readonly Message[] {
  return insertSystem && wantsEmptySystemMessage(template, row.prompt, semantics)
    ? [{ role: "system", content: "" }, ...row.prompt]
    : row.prompt;
}

/**
 * `data_semantics: reference`: prompt and responses each on its own, without a generation prompt, so a response
 * begins with its assistant header; a BOS that the template put before a response is removed. [seed.md A.4]
 */
export function renderReference(row: ConversationPair, options: RenderOptions): PairTexts {
  const { template, tokenizer } = options;
  const response = (side: "chosen" | "rejected"): string => {
    const text = template.render(row[side], `${row.where}: ${side}`);
    const bos = tokenizer.bos?.text;
    return bos !== undefined && text.startsWith(bos) ? text.slice(bos.length) : text;
  };
  return {
    prompt: template.render(promptTurns(row, options, "reference"), `${row.where}: prompt`),
    chosen: response("chosen"),
    rejected: response("rejected"),
  };
}

/** Texts whose prompt ends with the template's generation prompt. */
export interface CorrectedTexts extends PairTexts {
  /** Characters of the generation prompt at the end of `prompt`; 0 where the template has none. */
  readonly opening: number;
  /** False where the template opens a generated turn in another way than a given one: the header is scored then. */
  readonly opened: boolean;
  /** The empty system message that was to be inserted is left out, because the template cannot do with it. */
  readonly withoutSystem: boolean;
}

/** The text as far as the EOS that ends it, white space behind that EOS left out. */
export function endAtEos(text: string, eos: string | undefined): string {
  const end = text.trimEnd();
  return eos !== undefined && end.endsWith(eos) ? end : text;
}

/**
 * `data_semantics: corrected`: the conversation is rendered as a whole with each response. The prompt is what the
 * template writes for the prompt with the generation prompt, as in generation; a response is what follows it. An
 * empty system message is inserted only where the template can do with it.
 *
 * Throws `DataError` where a template writes the prompt in another way once a response follows, unless it is only its
 * system message that moves.
 */
export function renderCorrected(row: ConversationPair, options: RenderOptions): CorrectedTexts {
  const turns = promptTurns(row, options, "corrected");
  const asGiven = (): CorrectedTexts =>
    insteadOf(
      () => renderWhole(row, row.prompt, options),
      () => renderAfterSystem(row, options),
    );
  if (turns === row.prompt) return asGiven();
  return insteadOf(
    () => renderWhole(row, turns, options),
    () => ({ ...asGiven(), withoutSystem: true }),
  );
}

/** The first, or the second where the first is a `DataError`; the error is the first one's where both are. */
function insteadOf<T>(first: () => T, second: () => T | undefined): T {
  try {
    return first();
  } catch (error) {
    const found = error instanceof DataError ? second() : undefined;
    if (found === undefined) throw error;
    return found;
  }
}

/**
 * For templates that put the system message before the last turn where that is the user's, as Mistral's do: the
 * prompt as in generation, and the response that follows the same prompt without its system message.
 */
function renderAfterSystem(
  row: ConversationPair,
  options: RenderOptions,
): CorrectedTexts | undefined {
  const [first, ...turns] = row.prompt;
  if (first?.role !== "system" || turns.length === 0) return undefined;
  const bare = renderWhole(row, turns, options);
  const where = `${row.where}: prompt`;
  const plain = options.template.render(row.prompt, where);
  const prompt = bare.opened
    ? options.template.render(row.prompt, where, { addGenerationPrompt: true })
    : plain;
  return { ...bare, prompt, opening: openingOf(prompt, plain) };
}

/** Characters of the generation prompt at the end of a prompt. */
function openingOf(prompt: string, plain: string): number {
  return prompt.startsWith(plain) ? prompt.length - plain.length : 0;
}

function renderWhole(
  row: ConversationPair,
  turns: readonly Message[],
  { template, tokenizer }: RenderOptions,
): CorrectedTexts {
  const where = `${row.where}: prompt`;
  const whole = (side: "chosen" | "rejected"): string =>
    template.render([...turns, ...row[side]], `${row.where}: ${side}`);
  const [chosen, rejected] = [whole("chosen"), whole("rejected")];
  const plain = template.render(turns, where);
  const generation = template.render(turns, where, { addGenerationPrompt: true });
  const prompt = [generation, plain].find(
    (text) => chosen.startsWith(text) && rejected.startsWith(text),
  );
  if (prompt === undefined) {
    let same = 0;
    while (same < plain.length && plain[same] === chosen[same]) same += 1;
    const from = (text: string): string => JSON.stringify(text.slice(same, same + 40));
    throw new DataError(
      `${where}: the chat template (${template.origin}) writes the prompt in another way once a response follows: ` +
        `${from(chosen)} where it has ${from(plain)} without a response`,
      {
        hint: "set chat_template to a template that writes message after message, or data_semantics: reference",
      },
    );
  }
  const eos = tokenizer.eos?.text;
  return {
    prompt,
    chosen: endAtEos(chosen.slice(prompt.length), eos),
    rejected: endAtEos(rejected.slice(prompt.length), eos),
    opening: openingOf(prompt, plain),
    opened: prompt === generation,
    withoutSystem: false,
  };
}
