import { parseYamlValue } from "./yaml.js";

/** `--key value` or `--key=value` from a command line. */
export interface Override {
  /** The flag as typed, without its value: `--learning_rate`. */
  readonly flag: string;
  /** Recipe key; `--dataset_mixer.rows.jsonl` names an entry of the map `dataset_mixer`. */
  readonly key: string;
  readonly entry: string | undefined;
  /** The value's text; undefined for a bare flag, which stands for true. */
  readonly text: string | undefined;
}

/**
 * Splits command-line words into overrides. A word that belongs to no flag is returned in `strays`.
 * Dashes inside a key count as underscores.
 */
export function parseOverrides(words: readonly string[]): {
  overrides: Override[];
  strays: string[];
} {
  const overrides: Override[] = [];
  const strays: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (!word.startsWith("--") || word === "--") {
      strays.push(word);
      continue;
    }
    const equals = word.indexOf("=");
    const flag = equals < 0 ? word : word.slice(0, equals);
    let text: string | undefined;
    if (equals >= 0) {
      text = word.slice(equals + 1);
    } else if (i + 1 < words.length && !words[i + 1]!.startsWith("--")) {
      text = words[++i];
    }
    const dot = flag.indexOf(".");
    const key = (dot < 0 ? flag : flag.slice(0, dot)).slice(2).replaceAll("-", "_");
    overrides.push({ flag, key, entry: dot < 0 ? undefined : flag.slice(dot + 1), text });
  }
  return { overrides, strays };
}

/**
 * The value of an override, read as YAML. Text that is no YAML is itself, and so is text that YAML
 * reads as something else where only text is accepted (`--run_name 7`).
 */
export function overrideValue(
  text: string | undefined,
  accepts: (value: unknown) => boolean,
): unknown {
  if (text === undefined) return true;
  let value: unknown = text;
  try {
    value = parseYamlValue(text);
  } catch {
    return text;
  }
  return typeof value !== "string" && !accepts(value) && accepts(text) ? text : value;
}
