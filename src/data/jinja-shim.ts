import * as jinja from "@huggingface/jinja";

/**
 * Corrections to @huggingface/jinja 0.5.11, whose version is pinned because they reach into it.
 * 1. `strip`, `lstrip` and `rstrip` ignore their argument and trim what JavaScript calls white space,
 *    where Python strips the characters named, or its own set of white space.
 * 2. The `trim` filter likewise trims JavaScript's white space.
 * 3. A template with CRLF line ends renders them; Jinja2 reads every line end as LF.
 * 4. `==` and `!=` compare across types: "" is no false in Python.
 * 5. `strftime_now` writes month names in the language of the machine; Python's are English.
 */

interface Value {
  readonly value: unknown;
}
type ValueClass = new (value: unknown) => Value;
interface MemberExpression {
  readonly computed: boolean;
  readonly object: unknown;
  readonly property?: { readonly value?: unknown };
}
interface FilterNode {
  readonly type: string;
  readonly value?: unknown;
}
/** The part of the interpreter that the shim touches; its types are private. */
interface InterpreterInternals {
  evaluate(node: unknown, environment: unknown): unknown;
  evaluateMemberExpression(expression: MemberExpression, environment: unknown): unknown;
  applyFilter(operand: unknown, filter: FilterNode, environment: unknown): unknown;
  evaluateBinaryExpression(node: BinaryNode, environment: unknown): unknown;
}
interface BinaryNode {
  readonly operator: { readonly value: string };
  readonly left: unknown;
  readonly right: unknown;
}

/** What `str.strip()` removes: the characters for which Python's `str.isspace` holds. */
const PYTHON_SPACE =
  "\\t\\n\\v\\f\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

/** Python's `strip`, `lstrip` and `rstrip`. `chars` undefined or null: white space. */
export function pythonStrip(
  method: "strip" | "lstrip" | "rstrip",
  text: string,
  chars?: string | null,
): string {
  const set = chars?.replace(/[\\\][^-]/g, "\\$&") ?? PYTHON_SPACE;
  if (set === "") return text;
  let result = text;
  if (method !== "rstrip") result = result.replace(new RegExp(`^[${set}]+`, "u"), "");
  if (method === "rstrip" || method === "strip") {
    // Not /[set]+$/: on a long inner run of white space that pattern takes quadratic time.
    const member = new RegExp(`^[${set}]$`, "u");
    const points = Array.from(result.slice(-1024));
    if (points.length > 0 && member.test(points.at(-1) ?? "")) {
      const all = Array.from(result);
      let end = all.length;
      while (end > 0 && member.test(all[end - 1] ?? "")) end -= 1;
      result = all.slice(0, end).join("");
    }
  }
  return result;
}

function installStrip(): void {
  const environment = new jinja.Environment();
  const sample = environment.set("sample", " ") as unknown as Value & {
    builtins: Map<string, Value>;
  };
  const StringValue = sample.constructor as ValueClass;
  const FunctionValue = sample.builtins.get("strip")?.constructor as ValueClass;
  const prototype = jinja.Interpreter.prototype as unknown as InterpreterInternals;
  const original = prototype.evaluateMemberExpression;
  prototype.evaluateMemberExpression = function (expression, scope) {
    const name = expression.computed ? undefined : expression.property?.value;
    if (name === "strip" || name === "lstrip" || name === "rstrip") {
      const object = this.evaluate(expression.object, scope);
      if (object instanceof StringValue) {
        const text = String(object.value);
        return new FunctionValue((args: (Value | undefined)[]) => {
          const chars = args[0]?.value;
          return new StringValue(
            pythonStrip(name, text, typeof chars === "string" ? chars : undefined),
          );
        });
      }
    }
    return original.call(this, expression, scope);
  };
  const BooleanValue = environment.set("truth", true).constructor as unknown as ValueClass;
  const originalBinary = prototype.evaluateBinaryExpression;
  prototype.evaluateBinaryExpression = function (node, scope) {
    const { value: operator } = node.operator;
    if (operator !== "==" && operator !== "!=") return originalBinary.call(this, node, scope);
    const [left, right] = [this.evaluate(node.left, scope), this.evaluate(node.right, scope)];
    const [a, b] = [(left as Value).value, (right as Value).value];
    const number = (value: unknown) => (typeof value === "boolean" ? Number(value) : value);
    return new BooleanValue((number(a) === number(b)) === (operator === "=="));
  };
  const originalFilter = prototype.applyFilter;
  prototype.applyFilter = function (operand, filter, scope) {
    if (filter.type === "Identifier" && filter.value === "trim" && operand instanceof StringValue) {
      return new StringValue(pythonStrip("strip", String(operand.value)));
    }
    return originalFilter.call(this, operand, filter, scope);
  };
}

installStrip();

/** Python's `range`, for templates that count. */
function range(start: number, stop?: number | null, step = 1): number[] {
  const [from, to] = typeof stop === "number" ? [start, stop] : [0, start];
  const count = Math.max(0, Math.ceil((to - from) / step));
  return Array.from({ length: count }, (_, i) => from + i * step);
}

const MONTHS =
  "January February March April May June July August September October November December".split(
    " ",
  );
const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** Python's `strftime` in the C locale, for the codes that chat templates use. */
export function strftime(date: Date, format: string): string {
  const two = (n: number): string => String(n).padStart(2, "0");
  const month = MONTHS[date.getMonth()] ?? "";
  const day = DAYS[date.getDay()] ?? "";
  const codes: Readonly<Record<string, string>> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    b: month.slice(0, 3),
    B: month,
    a: day.slice(0, 3),
    A: day,
    H: two(date.getHours()),
    I: two(date.getHours() % 12 || 12),
    p: date.getHours() < 12 ? "AM" : "PM",
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    "%": "%",
  };
  return format.replace(/%(.)/g, (whole, code: string) => codes[code] ?? whole);
}

/** Raised by a template that calls `raise_exception`. */
function raiseException(message: unknown): never {
  throw new Error(String(message));
}

/**
 * Compiles a chat template as transformers does (`trim_blocks` and `lstrip_blocks` on) and returns the
 * function that renders it. Throws what the engine throws: the caller knows what to name.
 */
export function compileTemplate(source: string): (variables: Record<string, unknown>) => string {
  const { parsed } = new jinja.Template(source.replace(/\r\n?/g, "\n"));
  return (variables) => {
    const environment = new jinja.Environment();
    const globals = {
      ...{ true: true, false: false, none: null, True: true, False: false, None: null },
      raise_exception: raiseException,
      range,
      strftime_now: (format: string) => strftime(new Date(), format),
      ...variables,
    };
    for (const [name, value] of Object.entries(globals)) environment.set(name, value);
    const result = new jinja.Interpreter(environment).run(parsed) as unknown as Value;
    return String(result.value);
  };
}
