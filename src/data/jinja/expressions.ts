import { filterNamed } from "./filters.js";
import type { Token } from "./lexer.js";
import { arithmetic, compares, member, slice } from "./operators.js";
import type { Expression, Scope } from "./scope.js";
import { testNamed } from "./tests.js";
import { Callable, Float, isTrue, numeric, Tuple, text, typeName, type Value } from "./values.js";

/** Words that are no variables. */
const RESERVED = new Set([
  "and",
  "or",
  "not",
  "if",
  "else",
  "in",
  "is",
  "elif",
  "for",
  "recursive",
]);

const CONSTANTS: ReadonlyMap<string, Value> = new Map<string, Value>([
  ...(["true", "True"] as const).map((name): [string, Value] => [name, true]),
  ...(["false", "False"] as const).map((name): [string, Value] => [name, false]),
  ...(["none", "None"] as const).map((name): [string, Value] => [name, null]),
]);

interface Arguments {
  readonly positional: readonly { readonly value: Expression; readonly spread: boolean }[];
  readonly named: readonly { readonly name: string; readonly value: Expression }[];
}

function evaluate(scope: Scope, { positional, named }: Arguments): [Value[], Map<string, Value>] {
  const args = positional.flatMap(({ value, spread }) => {
    const item = value(scope);
    return spread && Array.isArray(item) ? Array.from(item) : [item];
  });
  return [args, new Map(named.map(({ name, value }) => [name, value(scope)]))];
}

/**
 * Reads expressions from tokens, in the order in which Jinja2's operators bind: `if else`, `or`, `and`, `not`,
 * comparisons, `+ -`, `~`, `* / // %`, `**`, signs, and behind a value `.name [key] (arguments) | filter is test`.
 */
export class ExpressionParser {
  private at = 0;
  /** Names read since the last `collectNames`, for macros that use `varargs`, `kwargs` or `caller`. */
  private seen = new Set<string>();

  constructor(private readonly tokens: readonly Token[]) {}

  get token(): Token {
    return this.tokens[this.at] as Token;
  }

  next(): Token {
    const token = this.token;
    if (token.type !== "eof") this.at += 1;
    return token;
  }

  fail(message: string): never {
    throw new SyntaxError(`line ${this.token.line}: ${message}`);
  }

  /** True at an operator or name with this text. */
  is(value: string, type: Token["type"] = "operator"): boolean {
    return this.token.type === type && this.token.value === value;
  }

  /** Goes over such a token if it is there. */
  skip(value: string, type: Token["type"] = "operator"): boolean {
    if (!this.is(value, type)) return false;
    this.next();
    return true;
  }

  expect(value: string, type: Token["type"] = "operator"): void {
    if (!this.skip(value, type)) {
      this.fail(
        `expected "${value}", found ${JSON.stringify(this.token.value || this.token.type)}`,
      );
    }
  }

  expectName(): string {
    if (this.token.type !== "name")
      this.fail(`expected a name, found ${JSON.stringify(this.token.value)}`);
    return this.next().value;
  }

  /** Runs `read` and gives the names that it came across. */
  collectNames(read: () => void): ReadonlySet<string> {
    const outer = this.seen;
    this.seen = new Set();
    read();
    const found = this.seen;
    this.seen = new Set([...outer, ...found]);
    return found;
  }

  /** `a, b, c`: a tuple where there is a comma. Without `conditions`, `if` ends it. */
  tuple(conditions = true): Expression {
    const one = (): Expression => (conditions ? this.expression() : this.or());
    const first = one();
    if (!this.is(",")) return first;
    const items = [first];
    while (this.skip(",")) {
      if (this.token.type === "end" || this.is(")") || this.is("=")) break;
      items.push(one());
    }
    return (scope) => Tuple.of1(...items.map((item) => item(scope)));
  }

  expression(): Expression {
    let value = this.or();
    while (this.skip("if", "name")) {
      const [then, condition] = [value, this.or()];
      const otherwise: Expression = this.skip("else", "name") ? this.expression() : () => undefined;
      value = (scope) => (isTrue(condition(scope)) ? then(scope) : otherwise(scope));
    }
    return value;
  }

  or(): Expression {
    let left = this.and();
    while (this.skip("or", "name")) {
      const [a, b] = [left, this.and()];
      left = (scope) => {
        const value = a(scope);
        return isTrue(value) ? value : b(scope);
      };
    }
    return left;
  }

  private and(): Expression {
    let left = this.not();
    while (this.skip("and", "name")) {
      const [a, b] = [left, this.not()];
      left = (scope) => {
        const value = a(scope);
        return isTrue(value) ? b(scope) : value;
      };
    }
    return left;
  }

  private not(): Expression {
    if (!this.skip("not", "name")) return this.comparison();
    const value = this.not();
    return (scope) => !isTrue(value(scope));
  }

  private comparator(): string | undefined {
    if (this.token.type === "operator" && /^(==|!=|<=|>=|<|>)$/.test(this.token.value)) {
      return this.next().value;
    }
    if (this.skip("in", "name")) return "in";
    const after = this.tokens[this.at + 1];
    if (this.is("not", "name") && after?.type === "name" && after.value === "in") {
      this.at += 2;
      return "not in";
    }
    return undefined;
  }

  /** `a < b < c` is `a < b and b < c`, b evaluated once. */
  private comparison(): Expression {
    const first = this.sum();
    const rest: { operator: string; right: Expression }[] = [];
    for (let operator = this.comparator(); operator !== undefined; operator = this.comparator()) {
      rest.push({ operator, right: this.sum() });
    }
    if (rest.length === 0) return first;
    return (scope) => {
      let left = first(scope);
      for (const { operator, right } of rest) {
        const value = right(scope);
        if (!compares(operator, left, value)) return false;
        left = value;
      }
      return true;
    };
  }

  /** Operators of one rank, from the left. */
  private ranked(operators: readonly string[], operand: () => Expression): Expression {
    let left = operand();
    while (this.token.type === "operator" && operators.includes(this.token.value)) {
      const operator = this.next().value;
      const [a, b] = [left, operand()];
      left = (scope) => arithmetic(operator, a(scope), b(scope));
    }
    return left;
  }

  private sum(): Expression {
    return this.ranked(["+", "-"], () => this.concatenation());
  }

  private concatenation(): Expression {
    const first = this.product();
    if (!this.is("~")) return first;
    const parts = [first];
    while (this.skip("~")) parts.push(this.product());
    return (scope) => parts.map((part) => text(part(scope))).join("");
  }

  private product(): Expression {
    return this.ranked(["*", "/", "//", "%"], () => this.ranked(["**"], () => this.unary(true)));
  }

  private unary(filtered: boolean): Expression {
    let value: Expression;
    if (this.is("-") || this.is("+")) {
      const sign = this.next().value;
      const operand = this.unary(false);
      value = (scope) => {
        const of = operand(scope);
        const number = numeric(of);
        if (number === undefined) throw new Error(`a ${typeName(of)} has no sign`);
        const signed = sign === "-" ? -number : number;
        return of instanceof Float ? new Float(signed) : signed;
      };
    } else {
      value = this.primary();
    }
    value = this.postfix(value);
    return filtered ? this.filters(value) : value;
  }

  private primary(): Expression {
    const token = this.token;
    if (token.type === "name") {
      if (RESERVED.has(token.value)) this.fail(`unexpected "${token.value}"`);
      const { value: name } = this.next();
      if (CONSTANTS.has(name)) {
        const constant = CONSTANTS.get(name);
        return () => constant;
      }
      this.seen.add(name);
      return (scope) => scope.get(name);
    }
    if (token.type === "string") {
      let value = "";
      while (this.token.type === "string") value += this.next().value;
      return () => value;
    }
    if (token.type === "int" || token.type === "float") {
      const digits = this.next().value.replaceAll("_", "");
      const number = Number(digits);
      const value = token.type === "int" ? number : new Float(number);
      return () => value;
    }
    if (this.skip("(")) {
      if (this.skip(")")) return () => new Tuple();
      const value = this.tuple();
      this.expect(")");
      return value;
    }
    if (this.skip("[")) {
      const items = this.list("]", () => this.expression());
      return (scope) => items.map((item) => item(scope));
    }
    if (this.skip("{")) {
      const entries = this.list("}", () => {
        const key = this.expression();
        this.expect(":");
        return { key, value: this.expression() };
      });
      return (scope) => new Map(entries.map(({ key, value }) => [key(scope), value(scope)]));
    }
    return this.fail(`expected an expression, found ${JSON.stringify(token.value || token.type)}`);
  }

  private list<T>(end: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.skip(end)) {
      if (items.length > 0) {
        this.expect(",");
        if (this.skip(end)) break;
      }
      items.push(item());
    }
    return items;
  }

  private postfix(start: Expression): Expression {
    let value = start;
    for (;;) {
      const of = value;
      if (this.skip(".")) {
        const token = this.next();
        if (token.type !== "name" && token.type !== "int")
          this.fail("expected a name behind the dot");
        const key = token.type === "int" ? Number(token.value) : token.value;
        value = (scope) => member(of(scope), key, true);
      } else if (this.skip("[")) {
        value = this.subscript(of);
      } else if (this.is("(")) {
        value = this.call(of);
      } else {
        return value;
      }
    }
  }

  /** `value[key]` or `value[start:stop:step]`, behind the bracket. */
  private subscript(of: Expression): Expression {
    const part = (): Expression =>
      this.is(":") || this.is("]") ? () => undefined : this.expression();
    const first = part();
    if (this.skip("]")) {
      return (scope) => member(of(scope), first(scope), false);
    }
    this.expect(":");
    const stop = part();
    const step: Expression = this.skip(":") ? part() : () => undefined;
    this.expect("]");
    return (scope) => slice(of(scope), first(scope), stop(scope), step(scope));
  }

  private arguments(): Arguments {
    const positional: { value: Expression; spread: boolean }[] = [];
    const named: { name: string; value: Expression }[] = [];
    this.expect("(");
    this.list(")", () => {
      const after = this.tokens[this.at + 1];
      if (this.token.type === "name" && after?.type === "operator" && after.value === "=") {
        const name = this.next().value;
        this.next();
        named.push({ name, value: this.expression() });
        return;
      }
      const spread = this.skip("*");
      if (named.length > 0) this.fail("an argument without a name behind one with a name");
      positional.push({ value: this.expression(), spread });
    });
    return { positional, named };
  }

  private call(callee: Expression): Expression {
    const given = this.arguments();
    const make = (scope: Scope, caller?: Value): Value => {
      const called = callee(scope);
      if (!(called instanceof Callable)) throw new Error(`a ${typeName(called)} cannot be called`);
      const [args, keywords] = evaluate(scope, given);
      if (caller !== undefined) keywords.set("caller", caller);
      return called.call(args, keywords);
    };
    return Object.assign((scope: Scope) => make(scope), { callWith: make });
  }

  /** `| filter`, `is test` and calls behind a value. */
  private filters(start: Expression): Expression {
    let value = start;
    for (;;) {
      const of = value;
      if (this.skip("|")) value = this.filter(of);
      else if (this.skip("is", "name")) value = this.test(of);
      else if (this.is("(")) value = this.call(of);
      else return value;
    }
  }

  /** A filter applied to `of`, behind its bar. */
  filter(of: Expression): Expression {
    const name = this.expectName();
    const given: Arguments = this.is("(") ? this.arguments() : { positional: [], named: [] };
    return (scope) => {
      const filter = filterNamed(name);
      const value = of(scope);
      const [args, keywords] = evaluate(scope, given);
      return filter(value, args, keywords);
    };
  }

  private test(of: Expression): Expression {
    const negated = this.skip("not", "name");
    const name = this.expectName();
    let args: Expression[] = [];
    const { type, value } = this.token;
    const begins = ["name", "string", "int", "float"].includes(type) || /^[[{]$/.test(value);
    if (this.is("(")) {
      args = this.arguments().positional.map((argument) => argument.value);
    } else if (
      begins &&
      type !== "end" &&
      !(type === "name" && /^(else|or|and|is|if)$/.test(value))
    ) {
      args = [this.postfix(this.primary())];
    }
    return (scope) => {
      const test = testNamed(name);
      return (
        test(
          of(scope),
          args.map((argument) => argument(scope)),
        ) !== negated
      );
    };
  }
}
