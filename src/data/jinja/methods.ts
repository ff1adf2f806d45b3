import { PYTHON_SPACE } from "./lexer.js";
import {
  Callable,
  equals,
  Float,
  iterate,
  type Keywords,
  numeric,
  repr,
  Tuple,
  text,
  typeName,
  type Value,
} from "./values.js";

/** A method of `T`, as Python has it. */
type Method<T> = (self: T, args: readonly Value[], keywords: Keywords) => Value;

/** Python's `strip`, `lstrip` and `rstrip`. `chars` undefined or null: white space. */
export function pythonStrip(
  method: "strip" | "lstrip" | "rstrip",
  subject: string,
  chars?: string | null,
): string {
  const isMember =
    chars === undefined || chars === null
      ? (c: string) => SPACE.test(c)
      : (
          (set) => (c: string) =>
            set.has(c)
        )(new Set(chars));
  const points = Array.from(subject);
  let [begin, end] = [0, points.length];
  if (method !== "rstrip") while (begin < end && isMember(points[begin] ?? "")) begin += 1;
  if (method !== "lstrip") while (end > begin && isMember(points[end - 1] ?? "")) end -= 1;
  return points.slice(begin, end).join("");
}

const SPACE = new RegExp(`^[${PYTHON_SPACE}]$`, "u");
/** Where `splitlines` cuts. */
const LINE_ENDS = "\\n\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029";
const LINE_END = new RegExp(`\\r\\n|[${LINE_ENDS}]`, "u");
const SPACE_RUN = new RegExp(`[${PYTHON_SPACE}]+`, "u");

function str(value: Value, what: string): string {
  if (typeof value === "string") return value;
  throw new Error(`${what}: expected a str, found ${typeName(value)}`);
}

function int(value: Value, what: string): number {
  const number = value instanceof Float ? undefined : numeric(value);
  if (number === undefined) throw new Error(`${what}: expected an int, found ${typeName(value)}`);
  return number;
}

/** Python's `split`: by white space where there is no separator, from the left at most `limit` times. */
function split(subject: string, separator: Value, limit: number): string[] {
  if (separator === undefined || separator === null) {
    let rest = pythonStrip("lstrip", subject);
    const parts: string[] = [];
    while (rest !== "" && (limit < 0 || parts.length < limit)) {
      const gap = SPACE_RUN.exec(rest);
      if (gap === null) break;
      parts.push(rest.slice(0, gap.index));
      rest = rest.slice(gap.index + gap[0].length);
    }
    return rest === "" ? parts : [...parts, rest];
  }
  const by = str(separator, "split");
  if (by === "") throw new Error("split: empty separator");
  const parts = subject.split(by);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  return [...parts.slice(0, limit), parts.slice(limit).join(by)];
}

function rsplit(subject: string, separator: Value, limit: number): string[] {
  const backwards = (s: string): string => Array.from(s).reverse().join("");
  const by = typeof separator === "string" ? backwards(separator) : separator;
  return split(backwards(subject), by, limit).map(backwards).reverse();
}

/** Python's `str.title`: a letter behind a letter is small, every other one large. */
function title(subject: string): string {
  return subject.replace(/\p{L}+/gu, (word) => {
    const [first = "", ...rest] = Array.from(word);
    return first.toUpperCase() + rest.join("").toLowerCase();
  });
}

/** Python's `str.capitalize`. */
export function capitalize(subject: string): string {
  const [first = "", ...rest] = Array.from(subject);
  return first.toUpperCase() + rest.join("").toLowerCase();
}

function pad(subject: string, width: number, fill: string): [number, string] {
  return [Math.max(0, width - Array.from(subject).length), fill];
}

/** Python's `str.center`: of an odd margin the larger half is left where the width is odd. */
export function center(subject: string, width: number, fill = " "): string {
  const [margin] = pad(subject, width, fill);
  const left = Math.floor(margin / 2) + (margin & width & 1);
  return fill.repeat(left) + subject + fill.repeat(margin - left);
}

/** `{}`, `{0}` and `{name}` of `str.format`. */
function format(subject: string, args: readonly Value[], keywords: Keywords): string {
  let automatic = 0;
  return subject.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (whole, field?: string) => {
    if (field === undefined) return whole[0] ?? "";
    if (!/^(\d*|\p{L}[\p{L}\d_]*)$/u.test(field)) {
      throw new Error(`format: only {}, {0} and {name} are supported, found {${field}}`);
    }
    const isIndex = /^\d*$/.test(field);
    const index = field === "" ? automatic++ : Number(field);
    if (isIndex ? index >= args.length : !keywords.has(field)) {
      throw new Error(`format: nothing given for {${field}}`);
    }
    return text(isIndex ? args[index] : keywords.get(field));
  });
}

/** Python's `%` on a str, for the conversions s, r, d, i, f and x. */
export function percentFormat(subject: string, values: readonly Value[]): string {
  let next = 0;
  const pattern = /%([-0+ ]*)(\d*)(?:\.(\d+))?([a-zA-Z%])/g;
  const result = subject.replace(
    pattern,
    (_, flags: string, width: string, precision: string | undefined, kind: string) => {
      if (kind === "%") return "%";
      if (next >= values.length) throw new Error("not enough values for the format");
      const value = values[next++];
      let out: string;
      if (kind === "s")
        out = text(value).slice(0, precision === undefined ? undefined : Number(precision));
      else if (kind === "r") out = repr(value);
      else {
        const number = numeric(value);
        if (number === undefined || !/[dif]/.test(kind))
          throw new Error(`%${kind}: cannot format ${typeName(value)}`);
        out = kind === "f" ? number.toFixed(Number(precision ?? 6)) : String(Math.trunc(number));
        if (flags.includes("+") && number >= 0) out = `+${out}`;
      }
      const missing = Math.max(0, Number(width) - out.length);
      if (flags.includes("-")) return out + " ".repeat(missing);
      if (!flags.includes("0") || kind === "s") return " ".repeat(missing) + out;
      const sign = /^[-+]/.exec(out)?.[0] ?? "";
      return sign + "0".repeat(missing) + out.slice(sign.length);
    },
  );
  if (next < values.length) throw new Error("more values than the format takes");
  return result;
}

/** Positions are in code points, as Python counts. */
function find(subject: string, part: Value, last: boolean): number {
  const wanted = str(part, "find");
  const at = last ? subject.lastIndexOf(wanted) : subject.indexOf(wanted);
  return at < 0 ? -1 : Array.from(subject.slice(0, at)).length;
}

function found(position: number): number {
  if (position < 0) throw new Error("index: not found");
  return position;
}

/** `startswith` and `endswith` take a str or a tuple of them. */
function anyOf(value: Value, test: (part: string) => boolean): boolean {
  const parts = value instanceof Tuple ? Array.from(value) : [value];
  return parts.some((part) => test(str(part, "startswith or endswith")));
}

const isEach = (subject: string, pattern: RegExp): boolean =>
  subject !== "" && pattern.test(subject);
const isCased = (s: string, to: (s: string) => string): boolean =>
  to(s) === s && s.toLowerCase() !== s.toUpperCase();

const stripped =
  (method: "strip" | "lstrip" | "rstrip"): Method<string> =>
  (s, [chars]) =>
    pythonStrip(method, s, chars === undefined || chars === null ? null : str(chars, method));

const stringMethods: Readonly<Record<string, Method<string>>> = {
  strip: stripped("strip"),
  lstrip: stripped("lstrip"),
  rstrip: stripped("rstrip"),
  upper: (s) => s.toUpperCase(),
  lower: (s) => s.toLowerCase(),
  casefold: (s) => s.toLowerCase().replaceAll("ß", "ss"),
  title,
  capitalize,
  swapcase: (s) =>
    Array.from(s, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())).join(""),
  split: (s, [by, limit], keywords) =>
    split(s, by ?? keywords.get("sep"), int(limit ?? keywords.get("maxsplit") ?? -1, "split")),
  rsplit: (s, [by, limit], keywords) =>
    rsplit(s, by ?? keywords.get("sep"), int(limit ?? keywords.get("maxsplit") ?? -1, "rsplit")),
  splitlines: (s) => {
    const lines = s.split(LINE_END);
    return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
  },
  partition: (s, [by]) => {
    const at = s.indexOf(str(by, "partition"));
    const size = str(by, "partition").length;
    return at < 0 ? Tuple.of1(s, "", "") : Tuple.of1(s.slice(0, at), by, s.slice(at + size));
  },
  rpartition: (s, [by]) => {
    const at = s.lastIndexOf(str(by, "rpartition"));
    const size = str(by, "rpartition").length;
    return at < 0 ? Tuple.of1("", "", s) : Tuple.of1(s.slice(0, at), by, s.slice(at + size));
  },
  startswith: (s, [part]) => anyOf(part, (p) => s.startsWith(p)),
  endswith: (s, [part]) => anyOf(part, (p) => s.endsWith(p)),
  removeprefix: (s, [part]) =>
    s.startsWith(str(part, "removeprefix")) ? s.slice(str(part, "removeprefix").length) : s,
  removesuffix: (s, [part]) => {
    const end = str(part, "removesuffix");
    return end !== "" && s.endsWith(end) ? s.slice(0, -end.length) : s;
  },
  replace: (s, [from, to, count], keywords) =>
    replace(
      s,
      str(from, "replace"),
      str(to, "replace"),
      int(count ?? keywords.get("count") ?? -1, "replace"),
    ),
  find: (s, [part]) => find(s, part, false),
  rfind: (s, [part]) => find(s, part, true),
  index: (s, [part]) => found(find(s, part, false)),
  rindex: (s, [part]) => found(find(s, part, true)),
  count: (s, [part]) => s.split(str(part, "count")).length - 1,
  join: (s, [items]) =>
    iterate(items)
      .map((item) => str(item, "join"))
      .join(s),
  isdigit: (s) => isEach(s, /^\p{Nd}+$/u),
  isnumeric: (s) => isEach(s, /^\p{N}+$/u),
  isdecimal: (s) => isEach(s, /^\p{Nd}+$/u),
  isalpha: (s) => isEach(s, /^\p{L}+$/u),
  isalnum: (s) => isEach(s, /^[\p{L}\p{N}]+$/u),
  isspace: (s) => isEach(s, new RegExp(`^[${PYTHON_SPACE}]+$`, "u")),
  isupper: (s) => isCased(s, (t) => t.toUpperCase()),
  islower: (s) => isCased(s, (t) => t.toLowerCase()),
  zfill: (s, [width]) => {
    const sign = /^[-+]/.exec(s)?.[0] ?? "";
    return sign + s.slice(sign.length).padStart(int(width, "zfill") - sign.length, "0");
  },
  center: (s, [width, fill]) => center(s, int(width, "center"), str(fill ?? " ", "center")),
  ljust: (s, [width, fill]) =>
    s + str(fill ?? " ", "ljust").repeat(pad(s, int(width, "ljust"), "")[0]),
  rjust: (s, [width, fill]) =>
    str(fill ?? " ", "rjust").repeat(pad(s, int(width, "rjust"), "")[0]) + s,
  format,
};

/** Python's `str.replace`; a negative count replaces all. */
export function replace(subject: string, from: string, to: string, count = -1): string {
  const parts = from === "" ? ["", ...Array.from(subject), ""] : subject.split(from);
  if (count < 0 || parts.length <= count + 1) return parts.join(to);
  return parts.slice(0, count + 1).join(to) + from + parts.slice(count + 1).join(from);
}

const listMethods: Readonly<Record<string, Method<Value[]>>> = {
  index: (list, [item]) => found(list.findIndex((entry) => equals(entry, item))),
  count: (list, [item]) => list.filter((entry) => equals(entry, item)).length,
  copy: (list) => Array.from(list),
};

const dictMethods: Readonly<Record<string, Method<Map<Value, Value>>>> = {
  get: (dict, [key, otherwise = null]) => (dict.has(key) ? dict.get(key) : otherwise),
  keys: (dict) => [...dict.keys()],
  values: (dict) => [...dict.values()],
  items: (dict) => [...dict].map(([key, value]) => Tuple.of1(key, value)),
  copy: (dict) => new Map(dict),
};

function bound<T>(methods: Readonly<Record<string, Method<T>>>, self: T, name: string): Value {
  if (!Object.hasOwn(methods, name)) return undefined;
  const method = methods[name] as Method<T>;
  return new Callable((args, keywords) => method(self, args, keywords));
}

/** The method `name` of a value; undefined where it has none. What would change the value is not there. */
export function methodOf(value: Value, name: string): Value {
  if (typeof value === "string") return bound(stringMethods, value, name);
  if (Array.isArray(value)) return bound(listMethods, value, name);
  if (value instanceof Map) return bound(dictMethods, value, name);
  return undefined;
}
