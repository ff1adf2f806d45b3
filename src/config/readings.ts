import { parseYamlValue } from "./yaml.js";

/**
 * What else a value may have been meant as, likeliest first: recipes were written for YAML 1.1 and for
 * parsers that turn text into what a key expects. `"5e-7"` is a number, `yes` a boolean, `train,test` a
 * list, `'{"a": 1}'` a map, one value where a list is expected a list of it, and the other way round.
 *
 * Used only where the value as it stands does not fit its key.
 */
export function readings(value: unknown): unknown[] {
  if (typeof value === "string") return [...scalars(value), ...collections(value)];
  if (typeof value !== "object" || value === null) return [[value]];
  if (Array.isArray(value)) return [value.map(asNumber), ...(value.length === 1 ? value : [])];
  return [Object.fromEntries(Object.entries(value).map(([key, item]) => [key, asNumber(item)]))];
}

const NUMBER = /^[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d+)?$/i;

function scalars(text: string): unknown[] {
  const word = text.trim();
  if (NUMBER.test(word)) return [asNumber(word)];
  if (/^(yes|on|true)$/i.test(word)) return [true];
  if (/^(no|off|false)$/i.test(word)) return [false];
  return /^(null|none|~)$/i.test(word) ? [null] : [];
}

function asNumber(value: unknown): unknown {
  if (typeof value !== "string" || !NUMBER.test(value.trim())) return value;
  return Number(value.trim().replaceAll("_", ""));
}

function collections(text: string): unknown[] {
  if (/^\s*[[{]/.test(text)) {
    try {
      return [parseYamlValue(text)];
    } catch {
      return [];
    }
  }
  return text === "" ? [] : [text.split(",").map((item) => item.trim())];
}
