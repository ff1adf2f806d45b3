/** A piece of a template: text between tags, or a token inside one. */
export interface Token {
  readonly type:
    | "data"
    | "begin"
    | "end"
    | "name"
    | "string"
    | "int"
    | "float"
    | "operator"
    | "eof";
  /** Of a `begin` or `end`: `{{` or `{%`; of a string: its value. */
  readonly value: string;
  readonly line: number;
}

/** What `\s` and `strip()` mean in Python, as the inside of a character class. */
export const PYTHON_SPACE =
  "\\t\\n\\v\\f\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACES = new RegExp(`[${PYTHON_SPACE}]*`, "uy");
const ONLY_SPACES = new RegExp(`^[${PYTHON_SPACE}]+$`, "u");
const TRAILING_SPACES = new RegExp(`[${PYTHON_SPACE}]$`, "u");

const RAW = new RegExp(`\\{%([-+]?)[${PYTHON_SPACE}]*raw[${PYTHON_SPACE}]*(-?)%\\}`, "uy");
const END_RAW = new RegExp(
  `\\{%([-+]?)[${PYTHON_SPACE}]*endraw[${PYTHON_SPACE}]*([-+]?)%\\}`,
  "gu",
);
const NAME = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy;
const FLOAT = /(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?[eE][+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/y;
const INT = /0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|[1-9](?:_?\d)*|0(?:_?0)*/y;
const STRING = /'((?:[^'\\]|\\[\s\S])*)'|"((?:[^"\\]|\\[\s\S])*)"/y;
const OPERATOR = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y;

const ESCAPES: Readonly<Record<string, string>> = {
  "\n": "",
  "\\": "\\",
  "'": "'",
  '"': '"',
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** The value of a string literal: Python's escapes. */
function unescaped(body: string): string {
  return body.replace(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([\s\S]))/g,
    (whole, x?: string, u?: string, long?: string, octal?: string, other?: string) => {
      const hex = x ?? u ?? long;
      if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
      if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
      return ESCAPES[other ?? ""] ?? whole;
    },
  );
}

/** Python's `rstrip()`, in linear time. */
export function stripEnd(text: string): string {
  let end = text.length;
  while (end > 0 && TRAILING_SPACES.test(text[end - 1] ?? "")) end -= 1;
  return text.slice(0, end);
}

function matchAt(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/**
 * Cuts a template into tokens as Jinja2 does with `trim_blocks` and `lstrip_blocks`: a newline after a block or comment
 * goes, and so does white space before one that begins its line; `-` takes all white space on its side, `+` keeps it.
 */
export function tokenize(template: string): Token[] {
  const source = template.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  const tokens: Token[] = [];
  let at = 0;
  let line = 1;
  // Whether what was read last ended a line, so that white space from here on begins one.
  let lineStarts = true;

  const error = (message: string): SyntaxError => new SyntaxError(`line ${line}: ${message}`);
  const advance = (to: number): void => {
    for (let i = at; i < to; i++) if (source[i] === "\n") line += 1;
    at = to;
  };
  const data = (text: string): void => {
    if (text !== "") tokens.push({ type: "data", value: text, line });
  };
  /** Text before a tag whose sign is `-`, `+` or none. */
  const before = (text: string, sign: string, isVariable: boolean): string => {
    if (sign === "-") return stripEnd(text);
    if (sign === "+" || isVariable) return text;
    const start = text.lastIndexOf("\n") + 1;
    const isStart = start > 0 || lineStarts;
    return isStart && ONLY_SPACES.test(text.slice(start)) ? text.slice(0, start) : text;
  };
  /** Goes behind the end of a tag and over the white space that goes with it. */
  const close = (length: number, sign: string, trims: boolean): void => {
    advance(at + length);
    if (sign === "-") advance(at + (matchAt(SPACES, source, at)?.[0].length ?? 0));
    else if (sign === "" && trims && source[at] === "\n") advance(at + 1);
    lineStarts = source[at - 1] === "\n";
  };

  while (at < source.length) {
    const open = source.slice(at).search(/\{[{%#]/);
    if (open < 0) {
      data(source.slice(at));
      break;
    }
    const text = source.slice(at, at + open);
    const tag = source.slice(at + open, at + open + 2);
    const next = source[at + open + 2] ?? "";
    const sign = next === "-" || next === "+" ? next : "";
    data(before(text, sign, tag === "{{"));
    advance(at + open);

    const raw = tag === "{%" ? matchAt(RAW, source, at) : null;
    if (raw !== null) {
      close(raw[0].length, raw[2] ?? "", false);
      END_RAW.lastIndex = at;
      const end = END_RAW.exec(source);
      if (end === null) throw error("{% raw %} without {% endraw %}");
      data(before(source.slice(at, end.index), end[1] ?? "", false));
      advance(end.index);
      close(end[0].length, end[2] ?? "", true);
      continue;
    }
    if (tag === "{#") {
      const end = source.indexOf("#}", at + 2);
      if (end < 0) throw error("{# without #}");
      const last = source[end - 1] ?? "";
      const endSign = end > at + 2 && (last === "-" || last === "+") ? last : "";
      advance(end);
      close(2, endSign, true);
      continue;
    }
    tokens.push({ type: "begin", value: tag, line });
    advance(at + 2 + sign.length);
    inside(tag === "{{" ? "}}" : "%}", tag);
  }
  tokens.push({ type: "eof", value: "", line });
  return tokens;

  /** The tokens of a tag up to its end, which counts only outside of brackets. */
  function inside(end: string, tag: string): void {
    const brackets: string[] = [];
    const closing: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };
    for (;;) {
      advance(at + (matchAt(SPACES, source, at)?.[0].length ?? 0));
      if (at >= source.length) throw error(`${tag} without ${end}`);
      if (brackets.length === 0) {
        const sign = /^[-+]/.exec(source.slice(at, at + 1))?.[0] ?? "";
        if (source.startsWith(sign + end, at) && !(sign === "+" && end === "}}")) {
          tokens.push({ type: "end", value: tag, line });
          close(sign.length + 2, sign, end === "%}");
          return;
        }
      }
      const found = (["name", "float", "int", "string", "operator"] as const)
        .map((type) => ({
          type,
          match: matchAt(
            { name: NAME, float: FLOAT, int: INT, string: STRING, operator: OPERATOR }[type],
            source,
            at,
          ),
        }))
        .find(({ match }) => match !== null);
      if (found?.match === undefined || found.match === null) {
        throw error(`unexpected ${JSON.stringify(source.slice(at, at + 10))}`);
      }
      const { type, match } = found;
      const value = type === "string" ? unescaped(match[1] ?? match[2] ?? "") : match[0];
      if (type === "operator") {
        const wanted = closing[value];
        if (wanted !== undefined) brackets.push(wanted);
        else if (/[)\]}]/.test(value) && brackets.pop() !== value)
          throw error(`unexpected "${value}"`);
      }
      tokens.push({ type, value, line });
      advance(at + match[0].length);
    }
  }
}
