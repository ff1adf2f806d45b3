import type { Value } from "./values.js";

/** Variables by name: those of a block, then those around it. */
export class Scope {
  private readonly values = new Map<string, Value>();

  constructor(private readonly outer?: Scope) {}

  get(name: string): Value {
    return this.values.has(name) ? this.values.get(name) : this.outer?.get(name);
  }

  set(name: string, value: Value): void {
    this.values.set(name, value);
  }
}

/** An expression, ready to be evaluated. */
export interface Expression {
  (scope: Scope): Value;
  /** Of a call: makes it with one more argument, `caller`. */
  callWith?: (scope: Scope, caller: Value) => Value;
}

/** What a statement asks of the loop around it. */
export type Signal = "break" | "continue" | undefined;

/** A statement, ready to be run: it writes to `out`. */
export type Statement = (scope: Scope, out: string[]) => Signal;
