import { Float, floatText, type Keywords, text, typeName, type Value } from "./values.js";

/** A JSON string as Python's json writes it; DEL and everything beyond ASCII as it is, unless `ascii`. */
function quote(value: string, ascii: boolean): string {
  const written = JSON.stringify(value).replace(/\\u[\da-f]{4}/g, (sequence) => {
    // JSON.stringify escapes lone surrogates; Python leaves them, and so does a template.
    const code = Number.parseInt(sequence.slice(2), 16);
    return code >= 0xd800 ? String.fromCharCode(code) : sequence;
  });
  if (!ascii) return written;
  return written.replace(/[\u007f-\uffff]/g, (c) =>
    c === "\x7f" ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * `tojson` as transformers has it: Python's `json.dumps(value, ensure_ascii=False, indent=None, separators=None,
 * sort_keys=False)`, without the escapes for HTML of Jinja's own filter.
 */
export function toJson(value: Value, args: readonly Value[], keywords: Keywords): string {
  const option = (i: number, name: string): Value => args[i] ?? keywords.get(name);
  const ascii = option(0, "ensure_ascii") === true;
  const indentOption = option(1, "indent") ?? null;
  const indent =
    typeof indentOption === "number"
      ? " ".repeat(indentOption)
      : typeof indentOption === "string"
        ? indentOption
        : null;
  const given = option(2, "separators");
  const [comma, colon] = Array.isArray(given)
    ? given.map(text)
    : [indent === null ? ", " : ",", ": "];
  const sorted = option(3, "sort_keys") === true;

  const wrap = (open: string, items: string[], close: string, depth: number): string => {
    if (items.length === 0) return open + close;
    if (indent === null) return open + items.join(comma) + close;
    const line = `\n${indent.repeat(depth + 1)}`;
    return `${open}${line}${items.join(`${comma}${line}`)}\n${indent.repeat(depth)}${close}`;
  };
  const write = (item: Value, depth: number): string => {
    if (item === null) return "null";
    if (typeof item === "boolean" || typeof item === "number") return String(item);
    if (typeof item === "string") return quote(item, ascii);
    if (item instanceof Float) return floatText(item.value);
    if (Array.isArray(item)) {
      const items = Array.from(item, (entry) => write(entry, depth + 1));
      return wrap("[", items, "]", depth);
    }
    if (item instanceof Map) {
      const entries = [...item].map(([key, entry]): [string, Value] => [
        typeof key === "string" ? key : write(key, 0),
        entry,
      ]);
      if (sorted) entries.sort(([a], [b]) => (a < b ? -1 : 1));
      const members = entries.map(
        ([key, entry]) => quote(key, ascii) + colon + write(entry, depth + 1),
      );
      return wrap("{", members, "}", depth);
    }
    throw new Error(`tojson: a ${typeName(item)} cannot be written as JSON`);
  };
  return write(value, 0);
}
