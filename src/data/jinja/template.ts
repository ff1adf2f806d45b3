import { Scope } from "./scope.js";
import { parse } from "./statements.js";
import { strftime } from "./strftime.js";
import { Callable, fromJs, Namespace, numeric, text, type Value } from "./values.js";

/** The longest `range` that Jinja's sandbox makes. */
const LONGEST_RANGE = 100_000;

function range(args: readonly Value[]): Value[] {
  const [first = 0, second, third = 1] = args.map((value) => numeric(value) ?? Number.NaN);
  const [from, to, step] = second === undefined ? [0, first, 1] : [first, second, third];
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (!(step !== 0 && count <= LONGEST_RANGE))
    throw new Error("range: too long, or without a step");
  return Array.from({ length: count }, (_, i) => from + i * step);
}

/** The functions that every template sees. */
const FUNCTIONS: Readonly<Record<string, Callable>> = {
  raise_exception: new Callable(([message]) => {
    throw new Error(text(message));
  }),
  strftime_now: new Callable(([format]) => strftime(new Date(), text(format))),
  range: new Callable(range),
  namespace: new Callable(([initial], keywords) => {
    const given = initial instanceof Map ? [...initial] : [];
    return new Namespace(
      new Map([...given.map(([key, value]): [string, Value] => [text(key), value]), ...keywords]),
    );
  }),
  dict: new Callable(([initial], keywords) => {
    const given = initial instanceof Map ? [...initial] : [];
    return new Map<Value, Value>([...given, ...keywords]);
  }),
};

/**
 * Compiles a chat template and returns the function that renders it, as transformers does: Jinja2 with `trim_blocks`,
 * `lstrip_blocks`, loop controls and its sandbox, in which nothing given can be changed. Throws `SyntaxError` where
 * the template cannot be read; the function throws where rendering fails.
 *
 * @example
 * compileTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")({ messages: [{ content: "Hi" }] }); // "Hi"
 */
export function compileTemplate(source: string): (variables: Record<string, unknown>) => string {
  const body = parse(source);
  return (variables) => {
    const globals = new Scope();
    for (const [name, value] of Object.entries(FUNCTIONS)) globals.set(name, value);
    for (const [name, value] of Object.entries(variables)) globals.set(name, fromJs(value));
    const out: string[] = [];
    body(new Scope(globals), out);
    return out.join("");
  };
}
