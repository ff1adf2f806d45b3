// Recipes and overrides.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { loadRecipe } from "../../dist/config/load.js";
import { anyValue, mutateBytes } from "./random.mjs";

export const extension = ".yaml";
export const exitCode = 2;

const configs = path.join(import.meta.dirname, "../../configs");
const SEEDS = readdirSync(configs)
  .filter((name) => name.endsWith(".yaml"))
  .map((name) => readFileSync(path.join(configs, name), "utf8"));
const schema = JSON.parse(readFileSync(path.join(configs, "schema.json"), "utf8"));
const KEYS = Object.keys(schema.properties);
const SCALARS = [
  "1e-6",
  "banana",
  ".nan",
  "-.inf",
  "0x10",
  "1_000",
  "~",
  "'a",
  '"\\x"',
  "[1, 2",
  "{a: b}",
  "- x",
  "&a [*a]",
  "*b",
  "!!python/object:os.system x",
  "|",
  ">-",
  "2024-01-01",
  "yes",
  "off",
  "99999999999999999999",
  "",
  "__proto__",
  "? a",
  "a: b: c",
  "@x",
  "%TAG",
  "\t1",
  "[[[[[]]]]]",
  "!!binary aGk=",
  "<<",
];
const DICTIONARY = [
  ...SCALARS,
  "\n",
  ": ",
  "  ",
  "---\n",
  "...\n",
  "#",
  "\r",
  "\u2028",
  "\0",
  "<<: *a\n",
];

function value(random) {
  if (random.chance(0.5)) return random.pick(SCALARS);
  const text = JSON.stringify(anyValue(random)) ?? "null";
  return random.chance(0.1) ? "[".repeat(random.below(3000)) + text : text;
}

/** `words` and a recipe, with a line of separation: the override travels in the file's first comment. */
export function generate(random) {
  let lines = random.pick(SEEDS).split("\n");
  for (let n = random.below(4); n > 0; n--) {
    const at = random.below(lines.length);
    const kind = random.below(4);
    if (kind === 0) lines[at] = lines[at].replace(/:.*/, () => `: ${value(random)}`);
    else if (kind === 1) lines.splice(at, 0, `${random.pick(KEYS)}: ${value(random)}`);
    else if (kind === 2) lines.splice(at, 1);
    else lines.splice(at, 0, " ".repeat(random.below(6)) + lines[random.below(lines.length)]);
  }
  if (random.chance(0.02)) lines = aliases(random);
  const words = [`--${random.pick(KEYS)}${random.pick(["", "=", ".x", "x"])}`, value(random)];
  const bytes = Buffer.from(`# ${JSON.stringify(words)}\n${lines.join("\n")}`);
  return random.chance(0.4) ? mutateBytes(random, bytes, DICTIONARY) : bytes;
}

/** Aliases that would take up exponential memory when written out. */
function aliases(random) {
  const lines = ["a0: &a0 [x, x]"];
  for (let n = 1; n < 3 + random.below(40); n++)
    lines.push(`a${n}: &a${n} [*a${n - 1}, *a${n - 1}, *a${n - 1}]`);
  return lines;
}

export async function run(file, bytes) {
  let words = [];
  try {
    words = JSON.parse(bytes.toString().split("\n")[0].slice(2)).map(String);
  } catch {
    // The comment was mutated: no override.
  }
  let refused = 0;
  for (const overrides of [[], words]) {
    try {
      const { config } = loadRecipe(file, overrides);
      assert.ok(Object.isFrozen(config));
    } catch (error) {
      if (error.exitCode !== exitCode) throw error;
      refused++;
      assert.ok(error.message.length < 20_000, `a message of ${error.message.length} characters`);
    }
  }
  return refused > 0 ? "refused" : "read";
}
