import { type ChatTemplate, loadChatTemplate, wantsEmptySystemMessage } from "./chat.js";
import { endAtEos, renderCorrected, renderReference } from "./render.js";
import type { PreferenceRow, SftRow } from "./rows.js";
import { type DataConfig, DEFAULT_MAX_LENGTH, DEFAULT_MAX_PROMPT_LENGTH } from "./schema.js";
import {
  isMistralPath,
  MISTRAL_TEMPLATE,
  mistralTemplateToSave,
  recipeTemplate,
  type TemplateSource,
} from "./template-source.js";
import { hasScoredToken, type Limits, tokenizePair, tokenizeText } from "./tokenize.js";
import { tokenizeCorrected } from "./tokenize-corrected.js";
import { loadTokenizer, type Tokenizer } from "./tokenizer.js";
import type { TokenizedPair, TokenizedSequence } from "./types.js";

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
  /**
   * The chat template to save with the model: the one that the rows so far were rendered by, or the recipe's where
   * none was; `undefined` where it is the model's own or there is none.
   */
  templateToSave(): Promise<string | undefined>;
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

/** A pair with what became of it. */
function finished(
  texts: PreparedPair["texts"],
  tokenized: TokenizedPair & { readonly truncated: readonly string[] },
): PreparedPair {
  const { chosen, rejected, truncated } = tokenized;
  const dropped = !hasScoredToken(chosen) || !hasScoredToken(rejected);
  return { texts, pair: { chosen, rejected }, truncated, dropped };
}

/** Where a recipe is from and what it calls its model. */
export interface PreparerOptions {
  /** Folder of the recipe, for the path in `chat_template`. The current directory by default. */
  readonly baseDir?: string;
  /** `model_name_or_path` as the recipe has it; the reference looks for "mistral" in it. */
  readonly modelName?: string;
}

/** A `Preparer` for a recipe and the directory of its model. */
export function createPreparer(
  config: DataConfig,
  modelDir: string,
  { baseDir = ".", modelName = modelDir }: PreparerOptions = {},
): Preparer {
  const corrected = config.dataSemantics === "corrected";
  const notices: string[] = [];
  const tokenizer = once(async () => {
    const loaded = await loadTokenizer(modelDir);
    notices.push(...loaded.notices);
    return loaded;
  });
  const ofRecipe = once(async () =>
    typeof config.chatTemplate === "string"
      ? recipeTemplate(config.chatTemplate, baseDir)
      : undefined,
  );
  let used: ChatTemplate | undefined;
  const load = async (override: TemplateSource | undefined): Promise<ChatTemplate> => {
    const { specialTokens } = await tokenizer();
    used = await loadChatTemplate(modelDir, specialTokens, override);
    if (used.isDefault) {
      notices.push(
        `${modelDir}: the model has no chat template: messages are written as "<|role|>", a newline, the ` +
          "text and the end-of-sequence token (set chat_template to change this)",
      );
    }
    return used;
  };
  const template = once(async () => load(await ofRecipe()));
  const pairTemplate = once(async () => {
    const given = await ofRecipe();
    if (given !== undefined || corrected || !isMistralPath(modelName)) return load(given);
    notices.push(
      `model_name_or_path has "mistral" in it, so pairs are rendered by the reference's template for Mistral and ` +
        "not by the model's (set chat_template, or data_semantics: corrected, to change this)",
    );
    return load(MISTRAL_TEMPLATE);
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

  const said = new Set<string>();
  const notifyOnce = (topic: string, notice: string): void => {
    if (!said.has(topic)) notices.push(notice);
    said.add(topic);
  };
  const correctedPair = async (
    row: Exclude<PreferenceRow, { kind: "tokens" }>,
    tok: Tokenizer,
  ): Promise<PreparedPair> => {
    const limits = { maxLength: lengthLimit(), truncationMode: config.truncationMode };
    if (row.kind === "text") {
      const texts = {
        prompt: row.prompt,
        chosen: endAtEos(row.chosen, tok.eos?.text),
        rejected: endAtEos(row.rejected, tok.eos?.text),
      };
      return finished(texts, tokenizeCorrected(tok, texts, limits, row.where));
    }
    const chat = await pairTemplate();
    const insertSystem = config.autoInsertEmptySystemMsg;
    const rendered = renderCorrected(row, { template: chat, tokenizer: tok, insertSystem });
    const { opened, opening, withoutSystem, ...texts } = rendered;
    const of = `${row.where}: the chat template (${chat.origin})`;
    if (!opened) {
      notifyOnce(
        "header",
        `${of} opens an answer to be generated in another way than one that is given, so the header of the responses is scored`,
      );
    }
    if (withoutSystem) {
      notifyOnce(
        "system",
        `${of} cannot do with an empty system message before the prompt, so none is inserted (auto_insert_empty_system_msg)`,
      );
    }
    return finished(texts, tokenizeCorrected(tok, { ...texts, opening }, limits, row.where));
  };

  return {
    notices,
    tokenizer,
    async templateToSave() {
      if (used === undefined) return (await ofRecipe())?.source;
      if (used.isModels) return undefined;
      if (used.source !== MISTRAL_TEMPLATE.source) return used.source;
      return mistralTemplateToSave(await tokenizer());
    },
    async pair(row) {
      if (row.kind === "tokens")
        return finished(row.texts, { ...row.pair, truncated: row.truncated });
      const tok = await tokenizer();
      if (corrected) return correctedPair(row, tok);
      const options = { tokenizer: tok, insertSystem: config.autoInsertEmptySystemMsg };
      const texts =
        row.kind === "text"
          ? { prompt: row.prompt, chosen: row.chosen, rejected: row.rejected }
          : renderReference(row, { template: await pairTemplate(), ...options });
      return finished(texts, tokenizePair(tok, texts, pairLimits(), row.where));
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
          config.autoInsertEmptySystemMsg &&
          wantsEmptySystemMessage(chat, row.messages, "reference");
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
