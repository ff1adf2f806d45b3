import { Command, Option, type OptionValues } from "commander";
import { loadRecipe, type Recipe } from "../config/load.js";
import { ConfigError, isReported, SimperError } from "../errors.js";
import { ranksFromEnvironment } from "../parallel/ranks.js";

/** Stack traces are shown with --verbose or SIMPER_VERBOSE=1. */
export function isVerbose(): boolean {
  const value = process.env.SIMPER_VERBOSE;
  return value !== undefined && value !== "" && value !== "0";
}

/** A line for the user; results go to stdout, everything else here. */
export function inform(text: string): void {
  process.stderr.write(`simper-native: ${text}\n`);
}

/** What an error prints, and the exit code it asks for; nothing where another process of the run prints it. */
export function describeError(error: unknown): { text: string; exitCode: number } {
  const known = error instanceof SimperError;
  if (isReported(error) && !isVerbose()) return { text: "", exitCode: known ? error.exitCode : 1 };
  const message = error instanceof Error ? error.message || error.name : String(error);
  const hint = known
    ? error.hint
    : isVerbose()
      ? undefined
      : "run again with --verbose for details";
  const lines = [`simper-native: ${message}`];
  if (hint !== undefined) lines.push(`  ${hint}`);
  if (isVerbose() && error instanceof Error) lines.push(stackOf(error));
  return { text: `${lines.join("\n")}\n`, exitCode: known ? error.exitCode : 1 };
}

function stackOf(error: Error): string {
  const own = error.stack ?? error.message;
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackOf(error.cause)}` : own;
}

/**
 * A command whose argument is a recipe and whose unknown options are overrides of recipe keys
 * (`--learning_rate 1e-6`). The caller adds its own options and help.
 *
 * @example
 * export function planCommand(): Command {
 *   return recipeCommand("plan", async ({ config }) => { ... }).description("...");
 * }
 */
export function recipeCommand(
  name: string,
  run: (recipe: Recipe, options: OptionValues) => Promise<void> | void,
): Command {
  const command = new Command(name)
    .argument("<recipe.yaml>", "training recipe")
    .argument("[overrides...]", "recipe keys that replace the file's: --key value")
    .usage("<recipe.yaml> [options] [--key value ...]")
    .allowUnknownOption();
  return command.action(async () => {
    const { file, overrides } = recipeArguments(command.args);
    const flags = command.options.flatMap((option) => option.long ?? []);
    const {
      accelerate_config: accelerateConfig,
      nproc,
      nnodes = 1,
      node_rank: machine = 0,
    } = command.opts();
    const ranks = ranksFromEnvironment(process.env);
    const recipe = loadRecipe(file, overrides, {
      flags,
      processes: nproc === undefined ? nnodes * ranks.size : nnodes * nproc,
      ...(accelerateConfig ? { accelerateConfig } : {}),
    });
    // Once for all processes of a run: by our launcher, or by rank 0 where another one started it.
    const isTold = ranks.launcher !== "none" && process.env.SIMPER_LAUNCHED === "1";
    const first = ranks.rank === 0 && machine === 0 && !isTold;
    for (const notice of first ? recipe.notices : []) inform(notice);
    await run(recipe, command.opts());
  });
}

/** `--accelerate_config file.yaml`, of the commands that count steps. */
export function accelerateOption(): Option {
  return new Option(
    "--accelerate_config <file.yaml>",
    "read process count, ZeRO stage and precision from a file of `accelerate config`",
  );
}

/**
 * Finds the recipe among the words that are no option of the command: the first that is not `--key` or
 * its value.
 */
export function recipeArguments(words: readonly string[]): { file: string; overrides: string[] } {
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (!word.startsWith("--")) return { file: word, overrides: words.toSpliced(i, 1) };
    if (!word.includes("=") && words[i + 1]?.startsWith("--") === false) i++; // its value
  }
  throw new ConfigError(`expected a recipe file, received only overrides: ${words.join(" ")}`, {
    hint: "Put the recipe first: simper-native train recipe.yaml --key value",
  });
}
