import { type Command, InvalidArgumentError, Option } from "commander";
import { recipeKeyHelp } from "../config/help.js";
import { DEVICE_NAMES, type DeviceName } from "../native/index.js";
import { createConsoleReporter, createJsonlReporter } from "../report/index.js";
import type { ProfileRequest } from "../train/profiler.js";
import { train } from "../train/trainer.js";
import { accelerateOption, inform, recipeCommand } from "./shared.js";

/** `simper-native train`: runs a recipe. Ctrl-C once saves a checkpoint and exits 130, twice quits. */
export function trainCommand(): Command {
  return recipeCommand("train", async ({ config, baseDir }, options) => {
    const interruption = new AbortController();
    const signals = ["SIGINT", "SIGTERM"] as const;
    const onSignal = () => {
      if (interruption.signal.aborted) process.exit(130);
      interruption.abort();
      inform("stopping after this step and saving a checkpoint; once more quits at once");
    };
    for (const signal of signals) process.on(signal, onSignal);
    try {
      const { interrupted } = await train({
        config,
        baseDir,
        device: options.device as DeviceName,
        reporters: [createConsoleReporter(), createJsonlReporter()],
        signal: interruption.signal,
        ...(options.profile ? { profile: options.profile as ProfileRequest } : {}),
      });
      if (interrupted) {
        inform(`interrupted; go on with: --resume_from_checkpoint true`);
        process.exitCode = 130;
      }
    } finally {
      for (const signal of signals) process.off(signal, onSignal);
    }
  })
    .description("Fine-tune a model as a recipe says and write it to output_dir.")
    .addOption(
      new Option("--device <name>", "where to compute").choices(DEVICE_NAMES).default("auto"),
    )
    .addOption(accelerateOption())
    .option(
      "--profile [first:last]",
      "time by op of these optimizer steps, on the console and in output_dir/profile.json; without steps: all but the first",
      stepRange,
    )
    .addHelpText(
      "after",
      `
${recipeKeyHelp()}

Example:
  simper-native train configs/quickstart.yaml --learning_rate 1e-4 --output_dir outputs/mine`,
    );
}

/** Parser of `--profile 2:10`. */
function stepRange(text: string): ProfileRequest {
  const [, first, last] = /^(\d+):(\d+)$/.exec(text)?.map(Number) ?? [];
  if (first !== undefined && last !== undefined && first >= 1 && first <= last)
    return { first, last };
  throw new InvalidArgumentError(
    "expected steps first:last with 1 <= first <= last, such as 2:10; put the recipe before this option.",
  );
}
