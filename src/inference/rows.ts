import path from "node:path";
import { loadChatTemplate } from "../data/chat.js";
import type { RawRow } from "../data/formats/jsonl.js";
import { readJson, readJsonl } from "../data/formats/jsonl.js";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer.js";
import type { Message } from "../data/types.js";
import { DataError } from "../errors.js";

/** A row as token ids, with `file:line` for messages. */
export interface TokenRow {
  readonly ids: readonly number[];
  readonly where: string;
}

/**
 * Reads rows with `ids` (they win), `text` (tokenized with the tokenizer's own special tokens) or, where
 * allowed, `messages` (rendered by the chat template with the assistant's turn opened). The tokenizer is
 * loaded only when a row needs it.
 *
 * @throws DataError naming the row that has none of them.
 */
export async function readTokenRows(
  file: string,
  modelDir: string,
  accept: { readonly messages: boolean },
): Promise<{ rows: TokenRow[]; tokenizer: () => Promise<Tokenizer> }> {
  let loaded: Promise<Tokenizer> | undefined;
  const tokenizer = () => {
    loaded ??= loadTokenizer(modelDir);
    return loaded;
  };
  let template: ReturnType<typeof loadChatTemplate> | undefined;
  const encode = async ({ file: from, line, value }: RawRow): Promise<TokenRow> => {
    const where = `${from}:${line}`;
    const { ids, text, messages } = value;
    if (ids !== undefined) {
      if (isNumbers(ids)) return { ids, where };
      throw wrong(where, "ids", "a list of token ids", ids);
    }
    if (text !== undefined) {
      if (typeof text !== "string") throw wrong(where, "text", "a string", text);
      return { ids: (await tokenizer()).encode(text, { addSpecialTokens: true }), where };
    }
    if (accept.messages && messages !== undefined) {
      if (!isMessages(messages)) {
        throw wrong(where, "messages", "a list of {role, content} with string values", messages);
      }
      template ??= tokenizer().then((loaded) => loadChatTemplate(modelDir, loaded.specialTokens));
      const rendered = (await template).render(messages, where, { addGenerationPrompt: true });
      return { ids: (await tokenizer()).encode(rendered, { addSpecialTokens: false }), where };
    }
    const fields = accept.messages ? '"ids", "text" or "messages"' : '"ids" or "text"';
    throw new DataError(
      `${where}: expected a row with ${fields}, received ${Object.keys(value).join(", ") || "{}"}`,
    );
  };
  const rows: TokenRow[] = [];
  const raw = path.extname(file) === ".json" ? readJson(file) : readJsonl(file);
  for await (const row of raw) rows.push(await encode(row));
  return { rows, tokenizer };
}

function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((id) => typeof id === "number");
}

function isMessages(value: unknown): value is Message[] {
  const isMessage = (message: unknown) => {
    const { role, content } = (message ?? {}) as Partial<Message>;
    return typeof role === "string" && typeof content === "string";
  };
  return Array.isArray(value) && value.every(isMessage);
}

function wrong(where: string, field: string, expected: string, received: unknown): DataError {
  return new DataError(
    `${where}: ${field}: expected ${expected}, received ${JSON.stringify(received).slice(0, 60)}`,
  );
}
