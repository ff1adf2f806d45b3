#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { describeError } from "./cli/shared.js";

/** A command is loaded only when it is asked for: `--help` stays quick. */
interface Entry {
  readonly summary: string;
  readonly load: () => Promise<Command>;
}

const commands: Readonly<Record<string, Entry>> = {
  train: {
    summary: "fine-tune a model with a recipe",
    load: async () => (await import("./cli/train.js")).trainCommand(),
  },
  plan: {
    summary: "show the memory and the steps a recipe needs",
    load: async () => (await import("./cli/plan.js")).planCommand(),
  },
  inspect: {
    summary: "show what the model sees of a recipe's data",
    load: async () => (await import("./cli/inspect.js")).inspectCommand(),
  },
  score: {
    summary: "log-probabilities of texts under a model",
    load: async () => (await import("./cli/score.js")).scoreCommand(),
  },
  generate: {
    summary: "answers of a model to prompts",
    load: async () => (await import("./cli/generate.js")).generateCommand(),
  },
  env: {
    summary: "what this installation has and what is missing",
    load: async () => (await import("./cli/env.js")).envCommand(),
  },
  build: {
    summary: "build the native addon",
    load: async () => (await import("./cli/build.js")).buildCommand(),
  },
};

async function main(words: readonly string[]): Promise<void> {
  // --verbose belongs to every command and to none, so it is taken out before commander looks.
  if (words.includes("--verbose")) process.env.SIMPER_VERBOSE = "1";
  const rest = words.filter((word) => word !== "--verbose");
  const { version } = JSON.parse(
    readFileSync(new URL("../package.json", import.meta.url), "utf8"),
  ) as { version: string };
  const program = new Command("simper-native")
    .description("Preference fine-tuning with SimPER, without Python.")
    .version(version)
    .option("--verbose", "show where an error comes from")
    .addHelpText(
      "after",
      "\nExample:\n  simper-native train configs/quickstart.yaml --max_steps 10",
    )
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, "simper-native: ")),
    });
  const wanted = rest[0] === "help" ? rest[1] : rest[0];
  for (const [name, { summary, load }] of Object.entries(commands)) {
    const command = name === wanted ? await load() : new Command(name);
    program.addCommand(command.summary(summary).copyInheritedSettings(program));
  }
  await program.parseAsync(rest, { from: "user" });
}

/** Commander has printed its message already: help and version end well, all else is wrong usage. */
function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
    return;
  }
  const { text, exitCode } = describeError(error);
  process.stderr.write(text);
  process.exitCode = exitCode;
}

// Whoever reads the output may leave early (`| head`): that is no error of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});
process.stderr.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});
process.on("uncaughtException", (error) => {
  fail(error);
  process.exit();
});

try {
  await main(process.argv.slice(2));
} catch (error) {
  fail(error);
}
