import { readFileSync } from "node:fs";
import path from "node:path";
import { ConfigError } from "../errors.js";
import { readAccelerateConfig } from "./accelerate.js";
import { Check, display, type Where } from "./check.js";
import { toRecipeKey } from "./names.js";
import { overrideValue, parseOverrides } from "./overrides.js";
import type { Config, RecipeInput } from "./schema.js";
import { parseYamlMap } from "./yaml.js";

/** A recipe read from a file, with overrides applied. */
export interface Recipe {
  /** Every key with its default filled in; frozen. */
  readonly config: Config;
  /** What the user should know, each a sentence to print once. */
  readonly notices: readonly string[];
  /** The recipe file as named by the caller, and the folder it lies in. */
  readonly path: string;
  /** The folder that the recipe lies in: give it to train(), so that relative paths are found. */
  readonly baseDir: string;
}

/** What {@link loadRecipe} should know of its caller. */
export interface LoadOptions {
  /** Options of the calling command (`--device`), so that a mistyped one is recognised. */
  readonly flags?: readonly string[];
  /** A file of `accelerate config`, read for its process count, ZeRO stage and precision. */
  readonly accelerateConfig?: string;
  /** Processes that the recipe is to be run or planned with; default 1. */
  readonly processes?: number;
}

/**
 * Reads a recipe and applies the overrides of a command line (`["--learning_rate", "1e-6"]`).
 *
 * @throws ConfigError naming every problem at once, each with `file:line:column` or its flag.
 * @example
 * const { config, notices } = loadRecipe("configs/quickstart.yaml", ["--max_steps", "10"]);
 */
export function loadRecipe(
  file: string,
  words: readonly string[] = [],
  options: LoadOptions = {},
): Recipe {
  const yaml = parseYamlMap(readRecipe(file), file);
  const check = new Check(file);
  for (const [key, value] of yaml.values) {
    check.add(key, value, (inner, part) => {
      const place = yaml.place([key, ...inner], part);
      return { label: `${file}:${place.line}:${place.column}  ${display(key, inner)}`, place };
    });
  }
  const { overrides, strays } = parseOverrides(words);
  for (const word of strays) {
    check.problem({ label: word }, "unexpected argument; overrides are written --key value");
  }
  const flags = options.flags ?? [];
  for (const { flag, key, entry, text } of overrides) {
    const accepts = (value: unknown): boolean => check.accepts(key, value);
    const value = overrideValue(text, accepts);
    const where = (inner: readonly PropertyKey[]): Where => ({ label: display(flag, inner) });
    if (text === undefined && !accepts(true) && check.knows(key)) {
      check.problem({ label: flag }, "expects a value");
    } else if (entry === undefined) {
      check.add(key, value, where, flags);
    } else {
      check.addEntry(key, entry, value, where);
    }
  }
  const accelerate =
    options.accelerateConfig === undefined
      ? undefined
      : readAccelerateConfig(options.accelerateConfig);
  const { config, notices } = check.finish(accelerate, options.processes);
  return { config, notices, path: file, baseDir: path.dirname(path.resolve(file)) };
}

/**
 * The same checks and defaults for a recipe written in code, with code's spelling of the keys.
 *
 * @throws ConfigError naming every problem at once.
 */
export function defineConfig(input: RecipeInput): Pick<Recipe, "config" | "notices"> {
  const check = new Check("config");
  for (const [name, value] of Object.entries(input)) {
    if (value === undefined) continue;
    check.add(toRecipeKey(name), value, (inner) => ({ label: `config.${display(name, inner)}` }));
  }
  return check.finish();
}

function readRecipe(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why =
      code === "ENOENT"
        ? "there is no such file"
        : code === "EISDIR"
          ? "it is a folder"
          : String(code);
    throw new ConfigError(`${file}: cannot read the recipe: ${why}`, {
      cause: error,
      hint: "Give the path of a YAML file, for example configs/quickstart.yaml.",
    });
  }
}
