import { createHash } from "node:crypto";
import { type Command, InvalidArgumentError, Option, type OptionValues } from "commander";
import { recipeKeyHelp } from "../config/help.js";
import type { Recipe } from "../config/load.js";
import {
  type LaunchFlags,
  type LaunchRequest,
  launchRequest,
  launchRun,
  torchrunRequest,
  withoutLaunchFlags,
} from "../launch/index.js";
import { DEVICE_NAMES, type DeviceName, requireDevice } from "../native/index.js";
import { type Ranks, ranksFromEnvironment } from "../parallel/ranks.js";
import { createConsoleReporter, createJsonlReporter } from "../report/index.js";
import type { ProfileRequest } from "../train/profiler.js";
import { train } from "../train/trainer.js";
import { accelerateOption, inform, recipeCommand } from "./shared.js";

/**
 * `simper-native train`: runs a recipe, or starts processes that run it together. Ctrl-C once saves a checkpoint
 * and exits 130, twice quits.
 */
export function trainCommand(): Command {
  return recipeCommand("train", async (recipe, options) => {
    const ranks = ranksFromEnvironment(process.env);
    const request = requestOf(options, ranks);
    if (request !== undefined) {
      process.exitCode = await launchRanks(request, recipe, deviceOf(options));
      return;
    }
    await trainHere(recipe, options, ranks);
  })
    .description("Fine-tune a model as a recipe says and write it to output_dir.")
    .addOption(
      new Option("--device <name>", "where to compute").choices(DEVICE_NAMES).default("auto"),
    )
    .option(
      "--nproc <n>",
      "start this many processes on this machine: docs/distributed.md",
      whole(1),
    )
    .option("--nnodes <n>", "on this many machines", whole(1))
    .option("--node_rank <k>", "which of them this is, from 0", whole(0))
    .option("--master_addr <host>", "address of machine 0")
    .option("--master_port <port>", "port of machine 0 (default: 29500)", whole(1))
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

/** Trains in this process: as the only one, or as one of a run's ranks. */
async function trainHere(
  { config, baseDir }: Recipe,
  options: OptionValues,
  ranks: Ranks,
): Promise<void> {
  const interruption = new AbortController();
  const tell = ranks.rank === 0 ? inform : () => {};
  const stop = (): void => {
    if (interruption.signal.aborted) return;
    interruption.abort();
    tell("stopping after this step and saving a checkpoint; once more quits at once");
  };
  const stopOrQuit = (): void => {
    if (interruption.signal.aborted) process.exit(130);
    stop();
  };
  // SIGUSR2 is a request alone: mpirun passes it on, where it takes SIGINT and SIGTERM as orders to kill. Batch
  // systems send it some time before a job's end.
  const signals = { SIGINT: stopOrQuit, SIGTERM: stopOrQuit, SIGUSR2: stop } as const;
  for (const [signal, listener] of Object.entries(signals)) process.on(signal, listener);
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
      tell("interrupted; go on with: --resume_from_checkpoint true");
      process.exitCode = 130;
    }
  } finally {
    for (const [signal, listener] of Object.entries(signals)) process.off(signal, listener);
  }
}

/** The processes to start; undefined where this one is to train. */
function requestOf(options: OptionValues, ranks: Ranks): LaunchRequest | undefined {
  const asked = launchRequest(launchFlags(options), ranks, process.env);
  if (asked !== undefined || ranks.launcher !== "torchrun") return asked;
  return deviceOf(options) === "cpu" ? torchrunRequest(ranks) : undefined;
}

function deviceOf({ device }: OptionValues): "cpu" | "cuda" {
  return requireDevice(device as DeviceName) === "cuda" ? "cuda" : "cpu";
}

/** Starts the ranks of this machine, or of all. Each reads the recipe for itself; this process only looks on. */
function launchRanks(
  request: LaunchRequest,
  { config }: Recipe,
  device: "cpu" | "cuda",
): Promise<number> {
  const [node, script, ...words] = process.argv as [string, string, ...string[]];
  return launchRun({
    request,
    command: [node, ...process.execArgv, script, ...withoutLaunchFlags(words)],
    device,
    timeoutSeconds: config.ddpTimeout,
    recipe: createHash("sha256").update(JSON.stringify(config)).digest("hex"),
  });
}

function launchFlags(options: OptionValues): LaunchFlags {
  const { nproc, nnodes, node_rank, master_addr, master_port } = options as LaunchFlags;
  const given = { nproc, nnodes, node_rank, master_addr, master_port };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/** Parser of a whole number from `least` on. */
function whole(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d{1,6}$/.test(text) && value >= least) return value;
    throw new InvalidArgumentError(`expected a whole number from ${least} on.`);
  };
}
