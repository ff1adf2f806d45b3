/**
 * Where JSON text breaks the grammar of RFC 8259, and where its values end. `JSON.parse` is faster and
 * does the reading; its errors do not always carry a position, so this walks the text a second time.
 */

/** Thrown by `skipValue`: what was expected at which offset. */
export class JsonSyntaxError extends Error {
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.offset = offset;
  }
}

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const LITERAL = /true|false|null/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids raw control characters
const STRING_STOP = /["\\\u0000-\u001f]/g;

function match(pattern: RegExp, text: string, offset: number): number {
  pattern.lastIndex = offset;
  return pattern.test(text) ? pattern.lastIndex : -1;
}

/** Offset of the first character at or after `offset` that is not JSON white space. */
export function skipSpace(text: string, offset: number): number {
  return match(SPACE, text, offset);
}

function found(text: string, offset: number): string {
  const point = text.codePointAt(offset);
  return point === undefined ? "the end of the text" : JSON.stringify(String.fromCodePoint(point));
}

function expected(what: string, text: string, offset: number): JsonSyntaxError {
  return new JsonSyntaxError(`expected ${what}, found ${found(text, offset)}`, offset);
}

function skipString(text: string, offset: number): number {
  let at = offset + 1;
  for (;;) {
    STRING_STOP.lastIndex = at;
    const stop = STRING_STOP.exec(text)?.index ?? text.length;
    if (text[stop] === '"') return stop + 1;
    if (text[stop] !== "\\") throw expected('the closing " of a string', text, stop);
    at = match(ESCAPE, text, stop);
    if (at < 0) throw new JsonSyntaxError("a backslash that starts no JSON escape", stop);
  }
}

/**
 * Offset just after the JSON value that starts at or after `offset`. Nesting is kept on a list of its
 * own, so a deep value cannot overflow the call stack.
 */
export function skipValue(text: string, offset: number): number {
  const open: ("[" | "{")[] = [];
  let at = skipSpace(text, offset);
  for (;;) {
    const start = text[at];
    let opened = false;
    if (start === "[" || start === "{") {
      open.push(start);
      at = skipSpace(text, at + 1);
      opened = text[at] !== (start === "[" ? "]" : "}");
    } else if (start === '"') {
      at = skipString(text, at);
    } else {
      const end = Math.max(match(NUMBER, text, at), match(LITERAL, text, at));
      if (end < 0) throw expected("a value", text, at);
      at = end;
    }
    // Close what ends here, then step over the comma to the next element.
    let top = open.at(-1);
    while (!opened && top !== undefined) {
      at = skipSpace(text, at);
      const close = top === "[" ? "]" : "}";
      if (text[at] === close) {
        at += 1;
        open.pop();
        top = open.at(-1);
        continue;
      }
      if (text[at] !== ",") throw expected(`"," or "${close}"`, text, at);
      at = skipSpace(text, at + 1);
      opened = true;
    }
    if (top === undefined) return at;
    if (top === "{") {
      if (text[at] !== '"') throw expected("a key in double quotes", text, at);
      at = skipSpace(text, skipString(text, at));
      if (text[at] !== ":") throw expected('":"', text, at);
      at = skipSpace(text, at + 1);
    }
  }
}

/** The first place where `text` is not one JSON value, or `undefined` when it is one. */
export function jsonError(text: string): JsonSyntaxError | undefined {
  try {
    const end = skipSpace(text, skipValue(text, 0));
    return end === text.length
      ? undefined
      : new JsonSyntaxError(`${found(text, end)} after the end of the value`, end);
  } catch (error) {
    if (error instanceof JsonSyntaxError) return error;
    throw error;
  }
}
