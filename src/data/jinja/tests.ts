import { contains } from "./operators.js";
import { Callable, compare, equals, Float, numeric, text, typeName, type Value } from "./values.js";

/** A test, `value is name` or `value is name(args)`. */
export type Test = (value: Value, args: readonly Value[]) => boolean;

function whole(value: Value): number {
  const number = numeric(value);
  if (number === undefined) throw new Error(`expected a number, found ${typeName(value)}`);
  return number;
}

const isList = (value: Value): boolean => Array.isArray(value);

function isIterable(value: Value): boolean {
  return value === undefined || typeof value === "string" || isList(value) || value instanceof Map;
}

/** Python's `is`: the same object, or the same constant. */
function isSame(a: Value, b: Value): boolean {
  if (a instanceof Float && b instanceof Float) return a.value === b.value;
  return a === b;
}

const equal: Test = (value, [other]) => equals(value, other);
const unequal: Test = (value, [other]) => !equals(value, other);
const less: Test = (value, [other]) => compare(value, other) < 0;
const lessOrEqual: Test = (value, [other]) => compare(value, other) <= 0;
const greater: Test = (value, [other]) => compare(value, other) > 0;
const greaterOrEqual: Test = (value, [other]) => compare(value, other) >= 0;

/** Jinja's tests by name. */
export const tests: Readonly<Record<string, Test>> = {
  defined: (value) => value !== undefined,
  undefined: (value) => value === undefined,
  none: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  true: (value) => value === true,
  false: (value) => value === false,
  integer: (value) => typeof value === "number",
  float: (value) => value instanceof Float,
  number: (value) => numeric(value) !== undefined,
  string: (value) => typeof value === "string",
  mapping: (value) => value instanceof Map,
  iterable: isIterable,
  sequence: isIterable,
  callable: (value) => value instanceof Callable,
  sameas: (value, [other]) => isSame(value, other),
  odd: (value) => Math.abs(whole(value) % 2) === 1,
  even: (value) => whole(value) % 2 === 0,
  divisibleby: (value, [by]) => whole(value) % whole(by) === 0,
  lower: (value) => isCased(text(value), (s) => s.toLowerCase()),
  upper: (value) => isCased(text(value), (s) => s.toUpperCase()),
  in: (value, [container]) => contains(container, value),
  eq: equal,
  equalto: equal,
  "==": equal,
  ne: unequal,
  "!=": unequal,
  lt: less,
  lessthan: less,
  "<": less,
  le: lessOrEqual,
  "<=": lessOrEqual,
  gt: greater,
  greaterthan: greater,
  ">": greater,
  ge: greaterOrEqual,
  ">=": greaterOrEqual,
};

function isCased(subject: string, to: (s: string) => string): boolean {
  return to(subject) === subject && subject.toLowerCase() !== subject.toUpperCase();
}

/** The test of that name. Throws where there is none. */
export function testNamed(name: string): Test {
  const test = Object.hasOwn(tests, name) ? tests[name] : undefined;
  if (test === undefined) throw new SyntaxError(`no test named "${name}"`);
  return test;
}
