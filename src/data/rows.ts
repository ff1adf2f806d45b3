import { DataError } from "../errors.js";
import type { RawRow } from "./formats/index.js";
import { IGNORE, type Message, type TokenizedPair, type TokenizedSequence } from "./types.js";

/** What a row of any kind carries along. */
export interface RowOrigin {
  /** `file:line`, for error messages. */
  readonly where: string;
  /** The row's own `id` column, unchanged. */
  readonly id?: unknown;
}

/** Message lists: prompt and the two continuations, to be rendered by the chat template. */
export interface ConversationPair extends RowOrigin {
  readonly kind: "conversation";
  readonly prompt: readonly Message[];
  readonly chosen: readonly Message[];
  readonly rejected: readonly Message[];
}

/** Plain strings, used without a template. */
export interface TextPair extends RowOrigin {
  readonly kind: "text";
  readonly prompt: string;
  readonly chosen: string;
  readonly rejected: string;
}

/** A row that is tokenized already; the strings are there when an earlier `inspect` wrote them. */
export interface TokenPair extends RowOrigin {
  readonly kind: "tokens";
  readonly pair: TokenizedPair;
  readonly texts: Partial<Record<"prompt" | "chosen" | "rejected", string>>;
  readonly truncated: readonly string[];
}

export type PreferenceRow = ConversationPair | TextPair | TokenPair;

/** A row for next-token training. */
export type SftRow =
  | (RowOrigin & { readonly kind: "conversation"; readonly messages: readonly Message[] })
  | (RowOrigin & { readonly kind: "text"; readonly text: string })
  | (RowOrigin & {
      readonly kind: "tokens";
      readonly sequence: TokenizedSequence;
      readonly text?: string;
      readonly truncated: readonly string[];
    });

const PAIR_TOKEN_COLUMNS = [
  "chosen_input_ids",
  "chosen_labels",
  "rejected_input_ids",
  "rejected_labels",
] as const;

const MESSAGE_FORM = 'a list of {"role": ..., "content": ...}';

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  return `${typeof value} ${JSON.stringify(value)?.slice(0, 40)}`;
}

function wrong(where: string, column: string, expected: string, value: unknown): DataError {
  return new DataError(`${where}: ${column}: expected ${expected}, found ${describe(value)}`, {
    hint: "correct the row, or leave it out of the file",
  });
}

/** A column that is absent or null. */
function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}

function readMessages(value: unknown, where: string, column: string): readonly Message[] {
  if (!Array.isArray(value)) throw wrong(where, column, MESSAGE_FORM, value);
  for (const [i, message] of (value as unknown[]).entries()) {
    const at = `${column}[${i}]`;
    if (typeof message !== "object" || message === null || Array.isArray(message)) {
      throw wrong(where, at, '{"role": ..., "content": ...}', message);
    }
    const { role, content } = message as { role?: unknown; content?: unknown };
    if (typeof role !== "string") throw wrong(where, `${at}.role`, "a string", role);
    if (typeof content !== "string") throw wrong(where, `${at}.content`, "a string", content);
  }
  return value as readonly Message[];
}

function readIds(value: unknown, where: string, column: string): Int32Array {
  if (!Array.isArray(value)) throw wrong(where, column, "a list of token ids", value);
  for (const [i, id] of (value as unknown[]).entries()) {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id > 0x7fffffff) {
      throw wrong(where, `${column}[${i}]`, "a token id (an integer, 0 or more)", id);
    }
  }
  return Int32Array.from(value as number[]);
}

function readLabels(value: unknown, ids: Int32Array, where: string, column: string): Int32Array {
  if (!Array.isArray(value)) throw wrong(where, column, "a list of labels", value);
  if (value.length !== ids.length) {
    throw new DataError(
      `${where}: ${column}: expected ${ids.length} labels, one per token, found ${value.length}`,
      { hint: `write one label per token: its id where it is scored, ${IGNORE} elsewhere` },
    );
  }
  for (const [i, label] of (value as unknown[]).entries()) {
    if (label !== IGNORE && label !== ids[i]) {
      throw wrong(where, `${column}[${i}]`, `${IGNORE} or the token's own id ${ids[i]}`, label);
    }
  }
  return Int32Array.from(value as number[]);
}

/** TRL's implicit prompt: the common beginning of two strings, less a space at its end. */
export function splitImplicitPrompt(
  chosen: string,
  rejected: string,
): { prompt: string; chosen: string; rejected: string } {
  // Characters are code points, as in Python: a prompt never ends inside a surrogate pair.
  const a = Array.from(chosen);
  const b = Array.from(rejected);
  const shorter = Math.min(a.length, b.length);
  let length = 0;
  while (length < shorter && a[length] === b[length]) length += 1;
  if (length === shorter) {
    // One string begins with the other: TRL leaves the last common character to the responses.
    length = Math.max(0, length - 1);
  } else if (length > 0 && a[length - 1] === " ") {
    length -= 1;
  }
  return {
    prompt: a.slice(0, length).join(""),
    chosen: a.slice(length).join(""),
    rejected: b.slice(length).join(""),
  };
}

function origin({ file, line, value }: RawRow): RowOrigin {
  const where = `${file}:${line}`;
  return isAbsent(value.id) ? { where } : { where, id: value.id };
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : [];
}

function readTokenPair(row: RawRow, from: RowOrigin): TokenPair {
  const { value } = row;
  const sequence = (side: "chosen" | "rejected"): TokenizedSequence => {
    const ids = readIds(value[`${side}_input_ids`], from.where, `${side}_input_ids`);
    const column = `${side}_labels`;
    return { ids, labels: readLabels(value[column], ids, from.where, column) };
  };
  const texts: Partial<Record<"prompt" | "chosen" | "rejected", string>> = {};
  for (const column of ["prompt", "chosen", "rejected"] as const) {
    const text = value[column];
    if (typeof text === "string") texts[column] = text;
  }
  return {
    ...from,
    kind: "tokens",
    pair: { chosen: sequence("chosen"), rejected: sequence("rejected") },
    texts,
    truncated: strings(value.truncated),
  };
}

/**
 * Reads a preference row: tokenized (`chosen_input_ids` …, which win), message lists, or plain strings.
 * Other columns are ignored.
 *
 * Message lists: a `prompt` that is a message list is used as it is; otherwise the prompt is `chosen`
 * without its last turn and the responses are the last turns. [seed.md A.4] Strings: prompt plus
 * response as they stand; without a prompt it is their common beginning.
 */
export function readPreferenceRow(row: RawRow): PreferenceRow {
  const { value } = row;
  const from = origin(row);
  const { where } = from;
  if (PAIR_TOKEN_COLUMNS.some((column) => !isAbsent(value[column])))
    return readTokenPair(row, from);

  const { prompt, chosen, rejected } = value;
  if (typeof chosen === "string" && typeof rejected === "string") {
    if (isAbsent(prompt))
      return { ...from, kind: "text", ...splitImplicitPrompt(chosen, rejected) };
    if (typeof prompt !== "string") {
      throw wrong(where, "prompt", "a string, as chosen and rejected are", prompt);
    }
    return { ...from, kind: "text", prompt, chosen, rejected };
  }
  if (Array.isArray(chosen) && Array.isArray(rejected)) {
    const chosenTurns = readMessages(chosen, where, "chosen");
    const rejectedTurns = readMessages(rejected, where, "rejected");
    const explicit = Array.isArray(prompt);
    if (!explicit && !isAbsent(prompt) && typeof prompt !== "string") {
      throw wrong(where, "prompt", `a string or ${MESSAGE_FORM}`, prompt);
    }
    const promptTurns = explicit ? readMessages(prompt, where, "prompt") : chosenTurns.slice(0, -1);
    const responses = explicit
      ? { chosen: chosenTurns, rejected: rejectedTurns }
      : { chosen: chosenTurns.slice(-1), rejected: rejectedTurns.slice(-1) };
    for (const side of ["chosen", "rejected"] as const) {
      if (responses[side].length === 0) {
        throw new DataError(
          `${where}: ${side}: expected at least one message, found an empty list`,
          {
            hint: "end the list with the response",
          },
        );
      }
    }
    if (promptTurns.length === 0) {
      throw new DataError(
        explicit
          ? `${where}: prompt: expected at least one message, found an empty list`
          : `${where}: chosen: expected the prompt's messages before the response, found one message`,
        { hint: "give the prompt as a message list in prompt, or as the first turns of chosen" },
      );
    }
    return { ...from, kind: "conversation", prompt: promptTurns, ...responses };
  }
  const expected = `a string or ${MESSAGE_FORM}`;
  if (typeof chosen !== "string" && !Array.isArray(chosen)) {
    throw wrong(where, "chosen", expected, chosen);
  }
  if (typeof rejected !== "string" && !Array.isArray(rejected)) {
    throw wrong(where, "rejected", expected, rejected);
  }
  throw wrong(
    where,
    "rejected",
    typeof chosen === "string" ? "a string, as chosen is" : `${MESSAGE_FORM}, as chosen is`,
    rejected,
  );
}

/** Reads a row for next-token training: `input_ids` (and `labels`), `messages`, or a text column. */
export function readSftRow(row: RawRow, textColumn: string): SftRow {
  const { value } = row;
  const from = origin(row);
  const { where } = from;
  if (!isAbsent(value.input_ids)) {
    const ids = readIds(value.input_ids, where, "input_ids");
    const labels = isAbsent(value.labels)
      ? ids.slice()
      : readLabels(value.labels, ids, where, "labels");
    const text = value[textColumn];
    return {
      ...from,
      kind: "tokens",
      sequence: { ids, labels },
      ...(typeof text === "string" ? { text } : {}),
      truncated: strings(value.truncated),
    };
  }
  if (!isAbsent(value.messages)) {
    const messages = readMessages(value.messages, where, "messages");
    if (messages.length === 0) {
      throw new DataError(
        `${where}: messages: expected at least one message, found an empty list`,
        {
          hint: "correct the row, or leave it out of the file",
        },
      );
    }
    return { ...from, kind: "conversation", messages };
  }
  const text = value[textColumn];
  if (typeof text !== "string") {
    const columns = Object.keys(value).join(", ") || "none";
    throw new DataError(
      `${where}: expected a column messages (${MESSAGE_FORM}), ${textColumn} (a string) or input_ids, ` +
        `found columns: ${columns}`,
      { hint: "rename a column, or name it with text_column" },
    );
  }
  return { ...from, kind: "text", text };
}
