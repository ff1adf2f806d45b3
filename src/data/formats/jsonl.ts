import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { DataError } from "../../errors.js";
import { JsonSyntaxError, jsonError, skipSpace, skipValue } from "./json-position.js";

/** One row of a data file, as read. */
export interface RawRow {
  readonly file: string;
  /** 1-based line on which the row starts. */
  readonly line: number;
  readonly value: Record<string, unknown>;
}

const NEWLINE = 0x0a;
/** JavaScript strings end at about 512 M characters; a larger file must be read line by line. */
const MAX_JSON_BYTES = 500_000_000;

async function* chunks(file: string): AsyncGenerator<Buffer> {
  try {
    yield* createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>;
  } catch (cause) {
    throw unreadable(file, cause as Error);
  }
}

function unreadable(file: string, cause: Error): DataError {
  return new DataError(`${file}: cannot be read: ${cause.message}`, { cause });
}

/** The lines of a UTF-8 file, cut at `\n` only: JSON strings may hold U+2028 and the like. */
async function* lines(file: string): AsyncGenerator<Buffer> {
  let rest: Buffer[] = [];
  for await (const chunk of chunks(file)) {
    let begin = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, begin)) {
      const tail = chunk.subarray(begin, end);
      yield rest.length === 0 ? tail : Buffer.concat([...rest, tail]);
      rest = [];
      begin = end + 1;
    }
    if (begin < chunk.length) rest.push(chunk.subarray(begin));
  }
  if (rest.length > 0) yield Buffer.concat(rest);
}

/** Decodes UTF-8 and drops a byte-order mark. */
const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(bytes: Uint8Array, file: string, line: number): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new DataError(`${file}:${line}: expected UTF-8 text, found other bytes`, {
      hint: "save the file as UTF-8",
      cause,
    });
  }
}

function isBlank(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
}

function asRow(value: unknown, file: string, line: number): RawRow {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const kind = value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
    throw new DataError(`${file}:${line}: expected a row {"column": value, ...}, found ${kind}`, {
      hint: "every row is one JSON object",
    });
  }
  return { file, line, value: value as Record<string, unknown> };
}

function malformed(
  text: string,
  error: JsonSyntaxError,
  file: string,
  firstLine: number,
): DataError {
  const before = text.slice(0, error.offset);
  const line = firstLine + before.split("\n").length - 1;
  const column = error.offset - before.lastIndexOf("\n");
  return new DataError(`${file}:${line}:${column}: malformed JSON: ${error.message}`, {
    hint: "a .jsonl file holds one JSON object per line, a .json file a list of objects",
  });
}

function parse(text: string, file: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const error = jsonError(text);
    if (error === undefined) throw cause;
    throw malformed(text, error, file, line);
  }
}

/** Rows of a JSON Lines file, one object per line; blank lines are skipped. */
export async function* readJsonl(file: string): AsyncGenerator<RawRow> {
  let line = 0;
  for await (const bytes of lines(file)) {
    line += 1;
    if (isBlank(bytes)) continue;
    yield asRow(parse(decode(bytes, file, line), file, line), file, line);
  }
}

/** Rows of a JSON Lines file, counted without parsing them. */
export async function countJsonl(file: string): Promise<number> {
  let count = 0;
  for await (const bytes of lines(file)) if (!isBlank(bytes)) count += 1;
  return count;
}

/**
 * Rows of a JSON file: a list of objects, an object with such a list as its only member `data`, or
 * objects one after the other (JSON Lines under the name `.json`, as Hugging Face tools write it).
 */
export async function* readJson(file: string): AsyncGenerator<RawRow> {
  const { size } = await stat(file).catch((cause: Error) => {
    throw unreadable(file, cause);
  });
  if (size > MAX_JSON_BYTES) {
    throw new DataError(`${file}: ${size} bytes are too many for one JSON text`, {
      hint: "write it as JSON Lines (.jsonl, one object per line), which is read line by line",
    });
  }
  const text = decode(await readFile(file), file, 1);
  // Walks the text value by value, counting lines, so that each row knows where it starts.
  let at = skipSpace(text, 0);
  let line = 1;
  let counted = 0;
  const lineAt = (offset: number): number => {
    for (let n = text.indexOf("\n", counted); n >= 0 && n < offset; n = text.indexOf("\n", n + 1)) {
      line += 1;
      counted = n + 1;
    }
    return line;
  };
  const guarded = <T>(walk: () => T): T => {
    try {
      return walk();
    } catch (error) {
      if (error instanceof JsonSyntaxError) throw malformed(text, error, file, 1);
      throw error;
    }
  };
  const elements = function* (begin: number): Generator<RawRow> {
    at = skipSpace(text, begin + 1);
    if (text[at] === "]") {
      at += 1;
      return;
    }
    for (;;) {
      const end = guarded(() => skipValue(text, at));
      const row: unknown = JSON.parse(text.slice(at, end));
      yield asRow(row, file, lineAt(at));
      at = skipSpace(text, end);
      if (text[at] === "]") break;
      if (text[at] !== ",") {
        throw malformed(text, new JsonSyntaxError('expected "," or "]"', at), file, 1);
      }
      at = skipSpace(text, at + 1);
    }
    at += 1;
  };
  const end = (): void => {
    at = skipSpace(text, at);
    if (at !== text.length) {
      throw malformed(text, new JsonSyntaxError("text after the end of the list", at), file, 1);
    }
  };
  if (text[at] === "[") {
    yield* elements(at);
    return end();
  }
  const wrapped = /^\{[ \t\n\r]*"data"[ \t\n\r]*:[ \t\n\r]*(?=\[)/.exec(text.slice(at, at + 1000));
  if (wrapped !== null) {
    yield* elements(at + wrapped[0].length);
    at = skipSpace(text, at);
    if (text[at] !== "}") {
      throw malformed(text, new JsonSyntaxError('expected "}" after the list "data"', at), file, 1);
    }
    at += 1;
    return end();
  }
  while (at < text.length) {
    const end = guarded(() => skipValue(text, at));
    yield asRow(JSON.parse(text.slice(at, end)), file, lineAt(at));
    at = skipSpace(text, end);
  }
}

/** Rows of a JSON file, counted. */
export async function countJson(file: string): Promise<number> {
  let count = 0;
  for await (const _ of readJson(file)) count += 1;
  return count;
}
