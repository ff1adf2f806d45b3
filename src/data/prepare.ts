import { type ChatTemplate, loadChatTemplate, wantsEmptySystemMessage } from "./chat.js";
import type { ConversationPair, PreferenceRow, SftRow } from "./rows.js";
import { type DataConfig, DEFAULT_MAX_LENGTH, DEFAULT_MAX_PROMPT_LENGTH } from "./schema.js";
import { hasScoredToken, type Limits, tokenizePair, tokenizeText } from "./tokenize.js";
import { loadTokenizer, type Tokenizer } from "./tokenizer.js";
import type { Message, TokenizedPair, TokenizedSequence } from "./types.js";

/** A preference row, rendered and tokenized. */
export interface PreparedPair {
  /** The three texts; absent for a row that came tokenized without them. */
  readonly texts: Partial<Record<"prompt" | "chosen" | "rejected", string>>;
  readonly pair: TokenizedPair;
  /** Parts that lost tokens to the length limits. */
  readonly truncated: readonly string[];
  /** A side has no token to score: the pair cannot be trained on. */
  readonly dropped: boolean;
}

/** A row for next-token training, rendered and tokenized. */
export interface PreparedSequence {
  readonly text: string | undefined;
  readonly sequence: TokenizedSequence;
  /** `["text"]` when the sequence lost tokens to `max_length`. */
  readonly truncated: readonly string[];
  readonly dropped: boolean;
}

/** Turns rows into tokens. The tokenizer and the template are loaded when a row first needs them. */
export interface Preparer {
  pair(row: PreferenceRow): Promise<PreparedPair>;
  sequence(row: SftRow): Promise<PreparedSequence>;
  tokenizer(): Promise<Tokenizer>;
  /** What the user should know, filled as rows are prepared. */
  readonly notices: string[];
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

/**
 * Renders prompt and responses each on its own, without a generation prompt, so a response begins with
 * its assistant header; a BOS that the template put before a response is removed. [seed.md A.4]
 */
function renderPair(
  row: ConversationPair,
  template: ChatTemplate,
  tokenizer: Tokenizer,
  insertSystem: boolean,
): Record<"prompt" | "chosen" | "rejected", string> {
  const messages: readonly Message[] =
    insertSystem && wantsEmptySystemMessage(template, row.prompt)
      ? [{ role: "system", content: "" }, ...row.prompt]
      : row.prompt;
  const response = (turns: readonly Message[], side: string): string => {
    const text = template.render(turns, `${row.where}: ${side}`);
    const bos = tokenizer.bos?.text;
    return bos !== undefined && text.startsWith(bos) ? text.slice(bos.length) : text;
  };
  return {
    prompt: template.render(messages, `${row.where}: prompt`),
    chosen: response(row.chosen, "chosen"),
    rejected: response(row.rejected, "rejected"),
  };
}

/** A `Preparer` for a recipe and the directory of its model. */
export function createPreparer(config: DataConfig, modelDir: string): Preparer {
  const notices: string[] = [];
  const tokenizer = once(async () => {
    const loaded = await loadTokenizer(modelDir);
    notices.push(...loaded.notices);
    return loaded;
  });
  const template = once(async () => {
    const { specialTokens } = await tokenizer();
    const loaded = await loadChatTemplate(modelDir, specialTokens, config.chatTemplate);
    if (loaded.isDefault) {
      notices.push(
        `${modelDir}: the model has no chat template: messages are written as "<|role|>", a newline, the ` +
          "text and the end-of-sequence token (set chat_template to change this)",
      );
    }
    return loaded;
  });
  let maxLength: number | undefined;
  const lengthLimit = (): number => {
    if (maxLength === undefined) {
      maxLength = config.maxLength ?? DEFAULT_MAX_LENGTH;
      if (typeof config.maxLength !== "number") {
        notices.push(`max_length is not set: sequences are cut to ${DEFAULT_MAX_LENGTH} tokens`);
      }
    }
    return maxLength;
  };
  let limits: Limits | undefined;
  const pairLimits = (): Limits => {
    if (limits === undefined) {
      limits = {
        maxLength: lengthLimit(),
        maxPromptLength: config.maxPromptLength ?? DEFAULT_MAX_PROMPT_LENGTH,
        truncationMode: config.truncationMode,
      };
      if (typeof config.maxPromptLength !== "number") {
        notices.push(
          "max_prompt_length is not set: the prompt of a pair that is too long is cut to " +
            `${DEFAULT_MAX_PROMPT_LENGTH} tokens`,
        );
      }
    }
    return limits;
  };

  return {
    notices,
    tokenizer,
    async pair(row) {
      const isDropped = ({ chosen, rejected }: TokenizedPair): boolean =>
        !hasScoredToken(chosen) || !hasScoredToken(rejected);
      if (row.kind === "tokens") {
        const { pair, texts, truncated } = row;
        return { texts, pair, truncated, dropped: isDropped(pair) };
      }
      const tok = await tokenizer();
      const texts =
        row.kind === "text"
          ? { prompt: row.prompt, chosen: row.chosen, rejected: row.rejected }
          : renderPair(row, await template(), tok, config.autoInsertEmptySystemMsg);
      const { truncated, ...pair } = tokenizePair(tok, texts, pairLimits(), row.where);
      return { texts, pair, truncated, dropped: isDropped(pair) };
    },
    async sequence(row) {
      if (row.kind === "tokens") {
        const { sequence, truncated } = row;
        return { text: row.text, sequence, truncated, dropped: !hasScoredToken(sequence) };
      }
      const tok = await tokenizer();
      let text: string;
      if (row.kind === "text") {
        text = row.text;
      } else {
        const chat = await template();
        const insert =
          config.autoInsertEmptySystemMsg && wantsEmptySystemMessage(chat, row.messages);
        text = chat.render(
          insert ? [{ role: "system", content: "" }, ...row.messages] : row.messages,
          `${row.where}: messages`,
        );
      }
      const { sequence, truncated } = tokenizeText(tok, text, {
        conversation: row.kind === "conversation",
        maxLength: lengthLimit(),
      });
      return {
        text,
        sequence,
        truncated: truncated ? ["text"] : [],
        dropped: !hasScoredToken(sequence),
      };
    },
  };
}
