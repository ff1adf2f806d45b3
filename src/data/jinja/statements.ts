import { ExpressionParser } from "./expressions.js";
import { tokenize } from "./lexer.js";
import { type Expression, Scope, type Signal, type Statement } from "./scope.js";
import {
  Attributes,
  Callable,
  equals,
  isTrue,
  iterate,
  Namespace,
  Tuple,
  text,
  typeName,
  type Value,
} from "./values.js";

/** Where a value goes: a name, names in brackets or with commas, or an attribute of a namespace. */
type Target = (scope: Scope, value: Value) => void;

/** What a loop knows, as `loop.name`. */
function loopState(
  items: readonly Value[],
  i: number,
  changed: { last: Value[] | undefined },
): Attributes {
  const facts: Readonly<Record<string, () => Value>> = {
    index: () => i + 1,
    index0: () => i,
    revindex: () => items.length - i,
    revindex0: () => items.length - i - 1,
    first: () => i === 0,
    last: () => i === items.length - 1,
    length: () => items.length,
    depth: () => 1,
    depth0: () => 0,
    previtem: () => items[i - 1],
    nextitem: () => items[i + 1],
    cycle: () => new Callable((args) => args[i % args.length]),
    changed: () =>
      new Callable((args) => {
        const isNew = changed.last === undefined || !equals(changed.last, [...args]);
        changed.last = [...args];
        return isNew;
      }),
  };
  return new Attributes((name) => (Object.hasOwn(facts, name) ? facts[name]?.() : undefined));
}

function unpack(value: Value, count: number): Value[] {
  const items = iterate(value);
  if (items.length === count) return items;
  throw new Error(`expected ${count} values to unpack, found ${items.length}`);
}

/** Runs statements one after the other until one asks for something. */
function sequence(statements: readonly Statement[]): Statement {
  return (scope, out) => {
    for (const statement of statements) {
      const signal = statement(scope, out);
      if (signal !== undefined) return signal;
    }
    return undefined;
  };
}

/** What a body prints, in a scope of its own. */
function printed(body: Statement, scope: Scope): string {
  const out: string[] = [];
  body(scope, out);
  return out.join("");
}

/** What a block printed, as the value that filters work on; no template can name it. */
const block: Expression = (scope) => scope.get("");

function withBlock(scope: Scope, body: Statement): Scope {
  const inner = new Scope(scope);
  inner.set("", printed(body, new Scope(scope)));
  return inner;
}

class TemplateParser extends ExpressionParser {
  private loops = 0;

  template(): Statement {
    const body = this.body([]);
    if (this.token.type !== "eof") this.fail(`unexpected "${this.token.value}"`);
    return body;
  }

  /** Statements up to a tag whose name is one of `ends`; that name is read, too, and is `this.ended`. */
  private body(ends: readonly string[]): Statement {
    const statements: Statement[] = [];
    for (;;) {
      const { type, value } = this.token;
      if (type === "eof") {
        if (ends.length > 0) this.fail(`expected {% ${ends.join(" %} or {% ")} %}, found the end`);
        break;
      }
      this.next();
      if (type === "data") {
        statements.push((_, out) => {
          out.push(value);
          return undefined;
        });
      } else if (value === "{{") {
        const printing = this.tuple();
        this.expect("{{", "end");
        statements.push((scope, out) => {
          out.push(text(printing(scope)));
          return undefined;
        });
      } else {
        const name = this.expectName();
        this.ended = name;
        if (ends.includes(name)) break;
        statements.push(this.statement(name));
      }
    }
    return sequence(statements);
  }

  private ended = "";

  private close(): void {
    this.expect("{%", "end");
  }

  private statement(name: string): Statement {
    switch (name) {
      case "if":
        return this.if();
      case "for":
        return this.for();
      case "set":
        return this.set();
      case "macro":
        return this.macro();
      case "call":
        return this.callBlock();
      case "filter":
        return this.filterBlock();
      case "with":
        return this.with();
      case "generation":
        return this.generation();
      case "break":
      case "continue":
        if (this.loops === 0) this.fail(`{% ${name} %} outside of a loop`);
        this.close();
        return () => name;
      default:
        return this.fail(`unknown tag "${name}"`);
    }
  }

  private if(): Statement {
    const branches: { condition: Expression; body: Statement }[] = [];
    let otherwise: Statement = () => undefined;
    do {
      const condition = this.tuple(false);
      this.close();
      branches.push({ condition, body: this.body(["elif", "else", "endif"]) });
    } while (this.ended === "elif");
    if (this.ended === "else") {
      this.close();
      otherwise = this.body(["endif"]);
    }
    this.close();
    return (scope, out) => {
      const branch = branches.find(({ condition }) => isTrue(condition(scope)));
      return (branch?.body ?? otherwise)(scope, out);
    };
  }

  private target(): Target {
    const one = (): Target => {
      if (this.skip("(")) {
        const inner = this.target();
        this.expect(")");
        return inner;
      }
      const name = this.expectName();
      if (!this.skip(".")) return (scope, value) => scope.set(name, value);
      const attribute = this.expectName();
      return (scope, value) => {
        const namespace = scope.get(name);
        if (!(namespace instanceof Namespace)) {
          throw new Error(
            `${name}.${attribute} can only be set on a namespace, found ${typeName(namespace)}`,
          );
        }
        namespace.attributes.set(attribute, value);
      };
    };
    const targets = [one()];
    if (!this.is(",")) return targets[0] as Target;
    while (this.skip(",")) {
      if (this.token.type !== "name" && !this.is("(")) break;
      targets.push(one());
    }
    return (scope, value) => {
      for (const [i, item] of unpack(value, targets.length).entries()) targets[i]?.(scope, item);
    };
  }

  private for(): Statement {
    const target = this.target();
    this.expect("in", "name");
    const source = this.tuple(false);
    const condition = this.skip("if", "name") ? this.expression() : undefined;
    this.skip("recursive", "name");
    this.close();
    this.loops += 1;
    const body = this.body(["else", "endfor"]);
    this.loops -= 1;
    let otherwise: Statement | undefined;
    if (this.ended === "else") {
      this.close();
      otherwise = this.body(["endfor"]);
    }
    this.close();
    return (scope, out) => {
      let items = iterate(source(scope));
      if (condition !== undefined) {
        items = items.filter((item) => {
          const inner = new Scope(scope);
          target(inner, item);
          return isTrue(condition(inner));
        });
      }
      if (items.length === 0) return otherwise?.(new Scope(scope), out);
      const changed = { last: undefined };
      for (const [i, item] of items.entries()) {
        const inner = new Scope(scope);
        target(inner, item);
        inner.set("loop", loopState(items, i, changed));
        if (body(inner, out) === "break") break;
      }
      return undefined;
    };
  }

  private set(): Statement {
    const target = this.target();
    if (this.skip("=")) {
      const value = this.tuple();
      this.close();
      return (scope) => {
        target(scope, value(scope));
        return undefined;
      };
    }
    let value = block;
    while (this.skip("|")) value = this.filter(value);
    this.close();
    const body = this.body(["endset"]);
    this.close();
    return (scope) => {
      target(scope, value(withBlock(scope, body)));
      return undefined;
    };
  }

  /** `(a, b=1)` as a macro or a call block declares it. */
  private parameters(): { name: string; otherwise: Expression }[] {
    const parameters: { name: string; otherwise: Expression }[] = [];
    this.expect("(");
    while (!this.skip(")")) {
      if (parameters.length > 0) this.expect(",");
      const name = this.expectName();
      parameters.push({ name, otherwise: this.skip("=") ? this.expression() : () => undefined });
    }
    return parameters;
  }

  /** A body with parameters, as a function of the scope in which it stands. */
  private routine(name: string, hasParameters: boolean, end: string): (scope: Scope) => Callable {
    const parameters = hasParameters ? this.parameters() : [];
    let body: Statement = () => undefined;
    return this.closing(() => {
      const used = this.collectNames(() => {
        const { loops } = this;
        this.loops = 0;
        body = this.body([end]);
        this.loops = loops;
      });
      return (scope: Scope) =>
        new Callable((args, keywords) => {
          const inner = new Scope(scope);
          const rest = new Map(keywords);
          if (args.length > parameters.length && !used.has("varargs")) {
            throw new Error(
              `${name}: expected at most ${parameters.length} arguments, found ${args.length}`,
            );
          }
          for (const [i, { name: parameter, otherwise }] of parameters.entries()) {
            const given = i < args.length ? args[i] : rest.get(parameter);
            const isGiven = i < args.length || rest.delete(parameter);
            inner.set(parameter, isGiven ? given : otherwise(inner));
          }
          inner.set("caller", rest.get("caller"));
          rest.delete("caller");
          if (rest.size > 0 && !used.has("kwargs")) {
            throw new Error(`${name}: no parameter named ${[...rest.keys()].join(", ")}`);
          }
          inner.set("varargs", Tuple.of1(...args.slice(parameters.length)));
          inner.set("kwargs", new Map<Value, Value>(rest));
          return printed(body, inner);
        });
    });
  }

  /** The body of a tag, between the end of the opening one and that of the closing one. */
  private closing<T>(read: () => T): T {
    this.beforeBody?.();
    this.beforeBody = undefined;
    this.close();
    const result = read();
    this.close();
    return result;
  }

  private beforeBody: (() => void) | undefined;

  private macro(): Statement {
    const name = this.expectName();
    const define = this.routine(name, true, "endmacro");
    return (scope) => {
      scope.set(name, define(scope));
      return undefined;
    };
  }

  /** `{% call(x) macro(arguments) %}body{% endcall %}`: the macro gets the body as `caller`. */
  private callBlock(): Statement {
    let called: Expression = () => undefined;
    this.beforeBody = () => {
      called = this.expression();
      if (called.callWith === undefined) this.fail("{% call %} needs a call");
    };
    const define = this.routine("caller", this.is("("), "endcall");
    return (scope, out) => {
      out.push(text(called.callWith?.(scope, define(scope))));
      return undefined;
    };
  }

  private filterBlock(): Statement {
    let value = this.filter(block);
    while (this.skip("|")) value = this.filter(value);
    const body = this.closing(() => this.body(["endfilter"]));
    return (scope, out) => {
      out.push(text(value(withBlock(scope, body))));
      return undefined;
    };
  }

  private with(): Statement {
    const values: { target: Target; value: Expression }[] = [];
    while (this.token.type !== "end") {
      if (values.length > 0) this.expect(",");
      const name = this.expectName();
      this.expect("=");
      values.push({ target: (scope, value) => scope.set(name, value), value: this.expression() });
    }
    const body = this.closing(() => this.body(["endwith"]));
    return (scope, out) => {
      const inner = new Scope(scope);
      for (const { target, value } of values) target(inner, value(scope));
      return body(inner, out);
    };
  }

  /** `{% generation %}`, with which transformers marks what an assistant says; it prints its body. */
  private generation(): Statement {
    const body = this.closing(() => this.body(["endgeneration"]));
    return (scope, out): Signal => {
      out.push(printed(body, new Scope(scope)));
      return undefined;
    };
  }
}

/** Reads a template. Throws `SyntaxError` with the line where it cannot be read. */
export function parse(template: string): Statement {
  return new TemplateParser(tokenize(template)).template();
}
