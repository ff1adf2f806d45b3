import { methodOf, percentFormat } from "./methods.js";
import {
  Attributes,
  compare,
  equals,
  Float,
  iterate,
  Namespace,
  numeric,
  Tuple,
  text,
  typeName,
  type Value,
} from "./values.js";

/** `part in whole`. */
export function contains(whole: Value, part: Value): boolean {
  if (typeof whole === "string") {
    if (typeof part !== "string")
      throw new Error(`"in" a str: expected a str, found ${typeName(part)}`);
    return whole.includes(part);
  }
  return iterate(whole).some((item) => equals(item, part));
}

/** `value[key]`, where the item wins, and `value.key`, where the method does; undefined where there is neither. */
export function member(value: Value, key: Value, dotted: boolean): Value {
  if (value === undefined) {
    throw new Error(
      `an undefined value has no ${dotted ? "attribute" : "item"} ${JSON.stringify(text(key))}`,
    );
  }
  if (value instanceof Namespace) return value.attributes.get(text(key));
  if (value instanceof Attributes) return value.get(text(key));
  const attribute = typeof key === "string" ? methodOf(value, key) : undefined;
  if (dotted && attribute !== undefined) return attribute;
  if (value instanceof Map) {
    if (value.has(key)) return value.get(key);
  } else if (typeof key === "number" || typeof key === "boolean") {
    if (typeof value === "string" || Array.isArray(value)) return iterate(value).at(Number(key));
  }
  return attribute;
}

/** `value[start:stop:step]`. */
export function slice(value: Value, start: Value, stop: Value, step: Value): Value {
  const items = iterate(value);
  const bound = (at: Value, otherwise: number): number => {
    if (at === undefined || at === null) return otherwise;
    const number = at instanceof Float ? undefined : numeric(at);
    if (number === undefined) throw new Error(`a slice takes ints, found ${typeName(at)}`);
    const from = number < 0 ? number + items.length : number;
    return backwards
      ? Math.max(-1, Math.min(from, items.length - 1))
      : Math.max(0, Math.min(from, items.length));
  };
  const by = step === undefined || step === null ? 1 : (numeric(step) ?? 0);
  if (by === 0) throw new Error("the step of a slice is not 0");
  const backwards = by < 0;
  const first = bound(start, backwards ? items.length - 1 : 0);
  const last = bound(stop, backwards ? -1 : items.length);
  const taken: Value[] = [];
  for (let i = first; backwards ? i > last : i < last; i += by) taken.push(items[i]);
  if (typeof value === "string") return taken.join("");
  return value instanceof Tuple ? Tuple.of1(...taken) : taken;
}

function repeat(value: string | Value[], times: number): Value {
  const count = Math.max(0, times);
  if (typeof value === "string") return value.repeat(count);
  const items = Array.from({ length: count }, () => Array.from(value)).flat();
  return value instanceof Tuple ? Tuple.of1(...items) : items;
}

const ARITHMETIC: Readonly<Record<string, (a: number, b: number) => number>> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "//": (a, b) => Math.floor(a / b),
  // The result has the sign of b, as in Python.
  "%": (a, b) => a - b * Math.floor(a / b),
  "**": (a, b) => a ** b,
};

/** `left operator right` for the operators of arithmetic. */
export function arithmetic(operator: string, left: Value, right: Value): Value {
  const [a, b] = [numeric(left), numeric(right)];
  const compute = ARITHMETIC[operator];
  if (a !== undefined && b !== undefined && compute !== undefined) {
    if (b === 0 && /[/%]/.test(operator)) throw new Error("division by zero");
    const result = compute(a, b);
    const isFloat =
      left instanceof Float ||
      right instanceof Float ||
      operator === "/" ||
      (operator === "**" && b < 0);
    return isFloat ? new Float(result) : result;
  }
  if (operator === "+") {
    if (typeof left === "string" && typeof right === "string") return left + right;
    if (
      Array.isArray(left) &&
      Array.isArray(right) &&
      left instanceof Tuple === right instanceof Tuple
    ) {
      const items = [...left, ...right];
      return left instanceof Tuple ? Tuple.of1(...items) : items;
    }
  }
  if (operator === "*") {
    if ((typeof left === "string" || Array.isArray(left)) && typeof right === "number")
      return repeat(left, right);
    if ((typeof right === "string" || Array.isArray(right)) && typeof left === "number")
      return repeat(right, left);
  }
  if (operator === "%" && typeof left === "string") {
    return percentFormat(left, right instanceof Tuple ? Array.from(right) : [right]);
  }
  throw new Error(`${typeName(left)} ${operator} ${typeName(right)} is not possible`);
}

/** `left operator right` for the comparisons. */
export function compares(operator: string, left: Value, right: Value): boolean {
  switch (operator) {
    case "==":
      return equals(left, right);
    case "!=":
      return !equals(left, right);
    case "in":
      return contains(right, left);
    case "not in":
      return !contains(right, left);
    case "<":
      return compare(left, right) < 0;
    case "<=":
      return compare(left, right) <= 0;
    case ">":
      return compare(left, right) > 0;
    default:
      return compare(left, right) >= 0;
  }
}
