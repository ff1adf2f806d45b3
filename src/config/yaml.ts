import * as yaml from "js-yaml";
import { ConfigError } from "../errors.js";

/** A place in a text, both counted from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** Where a value starts, and the values inside it. */
interface Located {
  readonly offset: number;
  readonly entries: Map<string, { readonly keyOffset: number; readonly value: Located }>;
}

/** A recipe's top level together with the place of every key and value in it. */
export interface YamlMap {
  readonly values: ReadonlyMap<string, unknown>;
  /** Place of a key (`"key"`) or of what it holds; the nearest enclosing one if there is no such path. */
  place(path: readonly PropertyKey[], part: "key" | "value"): Place;
}

const schema = yaml.CORE_SCHEMA.withTags(yaml.mergeTag);

/**
 * Reads a YAML document that is one map. YAML 1.2: `1e-6` is a number and `on` a string; merge keys
 * (`<<`) work.
 *
 * @throws ConfigError `<name>:<line>:<column>  ...` for syntax errors, repeated keys, anything but a map.
 */
export function parseYamlMap(source: string, name: string): YamlMap {
  if (
    source
      .replace(/^\uFEFF/, "")
      .split("\n")
      .every((line) => /^\s*(#.*|---\s*)?$/.test(line))
  ) {
    throw new ConfigError(
      `${name}: the recipe is empty; expected lines of the form \`key: value\``,
    );
  }
  let document: unknown;
  try {
    document = yaml.load(source, { schema });
  } catch (error) {
    if (!(error instanceof yaml.YAMLException)) throw error;
    const { mark, reason } = error;
    const where = mark ? `${name}:${mark.line + 1}:${mark.column + 1}` : name;
    throw new ConfigError(`${where}  not valid YAML: ${reason}`, { cause: error });
  }
  const unusable = problem(document);
  if (unusable) {
    throw new ConfigError(`${name}: ${unusable}`, {
      hint: "write the values out, without `*alias`",
    });
  }
  const root = locate(source);
  if (typeof document !== "object" || document === null || Array.isArray(document)) {
    const { line, column } = placeAt(source, root.offset);
    throw new ConfigError(
      `${name}:${line}:${column}  expected a map of keys (\`key: value\` lines), received ` +
        (Array.isArray(document) ? "a list" : JSON.stringify(document)),
    );
  }
  return {
    values: new Map(Object.entries(document)),
    place(path, part) {
      let node = root;
      let offset = root.offset;
      for (const [depth, step] of path.entries()) {
        const entry = node.entries.get(String(step));
        if (entry === undefined) break;
        offset = part === "key" && depth === path.length - 1 ? entry.keyOffset : entry.value.offset;
        node = entry.value;
      }
      return placeAt(source, offset);
    },
  };
}

/**
 * Reads one value as it would stand after `key: ` in a recipe.
 * @throws Error when it is no YAML, or too deep or too large to be a value.
 */
export function parseYamlValue(text: string): unknown {
  if (text.trim() === "") return "";
  const value = yaml.load(text, { schema });
  const unusable = problem(value);
  if (unusable) throw new Error(unusable);
  return value;
}

const MAX_DEPTH = 50;
const MAX_NODES = 100_000;

/** Why a document cannot be walked: an alias may hold itself, or stand for more than memory can. */
function problem(document: unknown): string | undefined {
  let nodes = 0;
  const walk = (value: unknown, depth: number): string | undefined => {
    if (++nodes > MAX_NODES) return `more than ${MAX_NODES} values, aliases written out`;
    if (typeof value !== "object" || value === null) return undefined;
    if (depth > MAX_DEPTH) return `values more than ${MAX_DEPTH} deep, or one that holds itself`;
    for (const inner of Object.values(value)) {
      const found = walk(inner, depth + 1);
      if (found) return found;
    }
    return undefined;
  };
  const found = walk(document, 0);
  return found && `${found}: expected a recipe`;
}

function placeAt(source: string, offset: number): Place {
  const before = source.slice(0, offset);
  return { line: before.split("\n").length, column: offset - before.lastIndexOf("\n") };
}

/** The tree of offsets behind a document, from the parser's event stream. */
function locate(source: string): Located {
  const anchors = new Map<string, Located>();
  const leaf = (offset: number): Located => ({ offset, entries: new Map() });
  let root = leaf(0);
  // One frame per open collection: `key` waits for its value, `items` counts the members of a list.
  type Frame = { node: Located; kind: "document" | "map" | "list"; items: number; key?: Key };
  type Key = { text: string; offset: number };
  const stack: Frame[] = [];

  const put = (node: Located, text: string): void => {
    const frame = stack.at(-1)!;
    if (frame.kind === "document") {
      root = node;
    } else if (frame.kind === "list") {
      frame.node.entries.set(String(frame.items++), { keyOffset: node.offset, value: node });
    } else if (frame.key === undefined) {
      frame.key = { text, offset: node.offset };
    } else {
      const { text: name, offset } = frame.key;
      delete frame.key;
      // `a:` with nothing after it has no value to point at.
      const value = node.offset < 0 ? { ...node, offset } : node;
      frame.node.entries.set(name, { keyOffset: offset, value });
    }
  };
  for (const event of yaml.parseEvents(source, {})) {
    if (event.type === yaml.EVENT_ID.POP) {
      const frame = stack.pop()!;
      if (frame.kind === "map") merge(frame.node);
      continue;
    }
    if (event.type === yaml.EVENT_ID.DOCUMENT) {
      stack.push({ node: root, kind: "document", items: 0 });
      continue;
    }
    const anchor = event.anchorStart < 0 ? "" : source.slice(event.anchorStart, event.anchorEnd);
    if (event.type === yaml.EVENT_ID.ALIAS) {
      put(anchors.get(anchor) ?? leaf(event.anchorStart), "");
      continue;
    }
    const scalar = event.type === yaml.EVENT_ID.SCALAR;
    const node = leaf(scalar ? quoteStart(source, event) : event.start);
    if (anchor !== "") anchors.set(anchor, node);
    put(node, scalar ? yaml.getScalarValue(source, event) : "");
    if (!scalar) {
      const kind = event.type === yaml.EVENT_ID.MAPPING ? "map" : "list";
      stack.push({ node, kind, items: 0 });
    }
  }
  return root;
}

/** Offset of a scalar as written, its opening quote included. */
function quoteStart(source: string, event: { valueStart: number }): number {
  const before = source[event.valueStart - 1];
  return before === '"' || before === "'" ? event.valueStart - 1 : event.valueStart;
}

/** Entries taken over with `<<` keep the place where they were written. */
function merge(node: Located): void {
  const merged = node.entries.get("<<")?.value;
  if (merged === undefined) return;
  node.entries.delete("<<");
  const isList =
    merged.entries.size > 0 && [...merged.entries.keys()].every((k, i) => k === `${i}`);
  const sources = isList ? [...merged.entries.values()].map((entry) => entry.value) : [merged];
  for (const from of sources) {
    for (const [key, entry] of from.entries) {
      if (!node.entries.has(key)) node.entries.set(key, entry);
    }
  }
}
