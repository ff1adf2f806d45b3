/**
 * Python's values as Jinja templates see them, in JavaScript's: `None` is null, Jinja's `Undefined` is undefined, an
 * int is a number, a float a {@link Float}, a dict a Map; str, bool and list are what they are here, too.
 */
export type Value =
  | undefined
  | null
  | boolean
  | number
  | string
  | Float
  | Value[]
  | Map<Value, Value>
  | Namespace
  | Callable
  | Attributes;

/** A Python float: `1.0` is not printed as `1`. */
export class Float {
  constructor(readonly value: number) {}
}

/** A Python tuple. Slices and maps of it are plain arrays. */
export class Tuple extends Array<Value> {
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }
  static of1(...items: Value[]): Tuple {
    const tuple = new Tuple();
    tuple.push(...items);
    return tuple;
  }
}

/** What `namespace(...)` gives: the one thing whose attributes a template may set. */
export class Namespace {
  constructor(readonly attributes: Map<string, Value>) {}
}

/** Something with attributes that is no dict: `loop`. */
export class Attributes {
  constructor(readonly get: (name: string) => Value) {}
}

/** Arguments by name. */
export type Keywords = ReadonlyMap<string, Value>;

/** A function, method or macro. */
export class Callable {
  constructor(readonly call: (args: readonly Value[], keywords: Keywords) => Value) {}
}

/** A value from JSON or from code. A number outside the whole ones that are exact is a float, as in Python's json. */
export function fromJs(value: unknown): Value {
  if (value === null || value === undefined) return value;
  if (typeof value === "number") return Number.isSafeInteger(value) ? value : new Float(value);
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (Array.isArray(value)) return value.map(fromJs);
  if (value instanceof Callable) return value;
  if (typeof value === "object") {
    return new Map(
      Object.entries(value).map(([key, entry]): [Value, Value] => [key, fromJs(entry)]),
    );
  }
  throw new TypeError(`a ${typeof value} cannot be used in a template`);
}

/** The name of a value's type in Python, for messages. */
export function typeName(value: Value): string {
  if (value === undefined) return "undefined";
  if (value === null) return "None";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return "int";
  if (typeof value === "string") return "str";
  if (value instanceof Float) return "float";
  if (value instanceof Tuple) return "tuple";
  if (Array.isArray(value)) return "list";
  if (value instanceof Map) return "dict";
  return value instanceof Callable ? "function" : "object";
}

/** Python's truth of a value. */
export function isTrue(value: Value): boolean {
  if (value instanceof Float) return value.value !== 0;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  return Boolean(value);
}

/** The number that a bool, int or float is; undefined for everything else. */
export function numeric(value: Value): number | undefined {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return Number(value);
  return value instanceof Float ? value.value : undefined;
}

/** Python's `==`. */
export function equals(a: Value, b: Value): boolean {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== undefined || y !== undefined) return x === y;
  if (Array.isArray(a) && Array.isArray(b)) {
    if (a instanceof Tuple !== b instanceof Tuple) return false;
    return a.length === b.length && a.every((item, i) => equals(item, b[i]));
  }
  if (a instanceof Map && b instanceof Map) {
    if (a.size !== b.size) return false;
    return [...a].every(([key, item]) => b.has(key) && equals(item, b.get(key)));
  }
  return a === b;
}

/** Python's order of two values, negative, 0 or positive; throws for values that have none. */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numeric(a), numeric(b)];
  if (x !== undefined && y !== undefined) return x - y;
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  if (Array.isArray(a) && Array.isArray(b)) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      if (!equals(a[i], b[i])) return compare(a[i], b[i]);
    }
    return a.length - b.length;
  }
  throw new Error(`${typeName(a)} and ${typeName(b)} have no order`);
}

/** By code points, where JavaScript compares UTF-16 units. */
function compareText(a: string, b: string): number {
  const [x, y] = [Array.from(a), Array.from(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const difference = (x[i]?.codePointAt(0) ?? 0) - (y[i]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return x.length - y.length;
}

/** The items that a loop walks over. */
export function iterate(value: Value): Value[] {
  if (value === undefined) return [];
  if (typeof value === "string") return Array.from(value);
  if (Array.isArray(value)) return Array.from(value);
  if (value instanceof Map) return [...value.keys()];
  throw new Error(`a ${typeName(value)} cannot be iterated over`);
}

/** Python's `len`. */
export function lengthOf(value: Value): number {
  if (value instanceof Map) return value.size;
  if (value === undefined || typeof value === "string" || Array.isArray(value)) {
    return iterate(value).length;
  }
  throw new Error(`a ${typeName(value)} has no length`);
}

/** A float as Python writes it: `1.0`, `1e+20`, `1e-05`. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const [digits = "", exponentText = "0"] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const sign = exponent < 0 ? "-" : "+";
    return `${digits}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const fixed =
    exponent < 0
      ? value.toFixed(Math.max(0, digits.replace(/[-.]/g, "").length - 1 - exponent))
      : String(value);
  return fixed.includes(".") ? fixed : `${fixed}.0`;
}

/** Python's `repr` of a str. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const named: Readonly<Record<string, string>> = {
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\\": "\\\\",
  };
  let out = "";
  for (const c of text) {
    const code = c.codePointAt(0) ?? 0;
    if (named[c] !== undefined) out += named[c];
    else if (c === quote) out += `\\${c}`;
    else if (c === " " || !/[\p{C}\p{Z}]/u.test(c)) out += c;
    else if (code < 0x100) out += `\\x${code.toString(16).padStart(2, "0")}`;
    else if (code < 0x10000) out += `\\u${code.toString(16).padStart(4, "0")}`;
    else out += `\\U${code.toString(16).padStart(8, "0")}`;
  }
  return quote + out + quote;
}

/** Python's `repr`. */
export function repr(value: Value): string {
  if (typeof value === "string") return quoted(value);
  if (value instanceof Tuple) {
    return `(${value.map(repr).join(", ")}${value.length === 1 ? "," : ""})`;
  }
  if (Array.isArray(value)) return `[${value.map(repr).join(", ")}]`;
  if (value instanceof Map) {
    return `{${[...value].map(([key, item]) => `${repr(key)}: ${repr(item)}`).join(", ")}}`;
  }
  return text(value);
}

/** What `{{ value }}` prints: Python's `str`. */
export function text(value: Value): string {
  if (value === undefined) return "";
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return value;
  if (typeof value === "number") return String(value);
  if (value instanceof Float) return floatText(value.value);
  if (Array.isArray(value) || value instanceof Map) return repr(value);
  return `<${typeName(value)}>`;
}
