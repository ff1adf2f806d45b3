import type * as z from "zod";
import { didYouMean, nearest } from "./names.js";

/** One reason why a value does not fit, with the path from the value that was checked. */
export interface Reason {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

type Issue = z.core.$ZodIssue;

/**
 * Says in the user's words why zod refused a value: what was expected and what came.
 *
 * @param later - values that are known elsewhere and not supported here yet
 */
export function explain(issue: Issue, value: unknown, later: readonly string[] = []): Reason {
  // A union reports every branch: follow the one that got furthest, or join what they expected.
  if (issue.code === "invalid_union") {
    const branches = issue.errors.map((errors) => errors[0]).filter((error) => error !== undefined);
    const deepest = branches.reduce<Issue | undefined>(
      (best, error) => (error.path.length > (best?.path.length ?? 0) ? error : best),
      undefined,
    );
    if (deepest !== undefined) {
      const inner = explain(deepest, at(value, issue.path), later);
      return { path: [...issue.path, ...inner.path], message: inner.message };
    }
    const wanted = [...new Set(branches.map(expectation))].join(" or ");
    return {
      path: issue.path,
      message: `expected ${wanted}, received ${show(at(value, issue.path))}`,
    };
  }
  const received = at(value, issue.path);
  if (issue.code === "custom") {
    return { path: issue.path, message: `${issue.message}, received ${show(received)}` };
  }
  if (issue.code === "unrecognized_keys") {
    const names = issue.keys.map((key) => `"${key}"`).join(", ");
    return { path: issue.path, message: `unknown key ${names}` };
  }
  if (issue.code === "invalid_type" && received === undefined) {
    return { path: issue.path, message: `this key is required: expected ${expectation(issue)}` };
  }
  if (issue.code === "invalid_value" && typeof received === "string") {
    const values = issue.values.map(String);
    if (later.includes(received) && nearest(received, values) === undefined) {
      return {
        path: issue.path,
        message: `"${received}" is not supported yet; use ${list(issue.values)}`,
      };
    }
    const hint = didYouMean(received, values);
    return {
      path: issue.path,
      message: `expected ${expectation(issue)}, received "${received}"${hint}`,
    };
  }
  return {
    path: issue.path,
    message: `expected ${expectation(issue)}, received ${show(received)}`,
  };
}

function expectation(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return typeNames[issue.expected] ?? issue.expected;
    case "invalid_value":
      return issue.values.length === 1 ? list(issue.values) : `one of ${list(issue.values)}`;
    case "too_small":
      return bound(issue.origin, issue.inclusive ? "at least" : "above", Number(issue.minimum));
    case "too_big":
      return bound(issue.origin, issue.inclusive ? "at most" : "below", Number(issue.maximum));
    default:
      return issue.message;
  }
}

const typeNames: Readonly<Record<string, string>> = {
  number: "a number",
  int: "a whole number",
  string: "text",
  boolean: "true or false",
  array: "a list",
  object: "a map",
  record: "a map",
  null: "null",
};

function bound(origin: string, relation: string, limit: number): string {
  if (origin === "string")
    return limit === 1 ? "text that is not empty" : `text of ${relation} ${limit} letters`;
  if (origin === "array") return `a list of ${relation} ${limit} item${limit === 1 ? "" : "s"}`;
  return `a number ${relation} ${limit}`;
}

function list(values: readonly unknown[]): string {
  return values.map((value) => JSON.stringify(value)).join(", ");
}

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  let inner = value;
  for (const step of path)
    inner = (inner as Record<PropertyKey, unknown> | null | undefined)?.[step];
  return inner;
}

function show(value: unknown): string {
  if (value === null) return "null (nothing)";
  if (typeof value === "number") return String(value);
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
