import { type Command, Option } from "commander";
import { ConfigError } from "../errors.js";
import { stepVolume } from "../parallel/volume.js";
import { parseAssumedPairs } from "../train/assumed-data.js";
import { draftFrom, readPlanInputs } from "../train/make-plan.js";
import { volumeOptions } from "../train/plan.js";
import { GPUS, predictScaling } from "../train/scaling.js";
import { wholeNumber } from "./output.js";
import { planText } from "./plan-text.js";
import { scalingText } from "./scaling-text.js";
import { accelerateOption, recipeCommand } from "./shared.js";

/** Numbers of GPUs of the scaling table. */
const SCALING_GPUS = [4, 8, 64, 1024];

/** What `plan` is given besides the recipe. */
interface PlanFlags {
  readonly nproc: number;
  readonly nnodes: number;
  readonly gpu?: keyof typeof GPUS;
  readonly assume?: string;
  readonly scaling?: true;
  readonly pairs_per_step?: number;
  readonly json?: true;
}

/** `simper-native plan`: memory, steps and exchanged bytes of a recipe; reads config and data, touches no device. */
export function planCommand(): Command {
  return recipeCommand("plan", async ({ config, baseDir }, given) => {
    const flags = given as PlanFlags;
    const print = (value: object, text: () => string) =>
      process.stdout.write(flags.json ? `${JSON.stringify(value, null, 2)}\n` : text());
    const { nproc, nnodes } = flags;
    if (Math.min(nproc, nnodes) < 1)
      throw new ConfigError(
        `expected --nproc and --nnodes of 1 or more, received ${nproc} and ${nnodes}`,
      );
    const assume = flags.assume ? parseAssumedPairs(flags.assume) : undefined;
    const inputs = await readPlanInputs(config, baseDir, assume);
    if (flags.scaling) {
      const gpu = GPUS[flags.gpu ?? "h100"];
      const scaling = predictScaling(config, inputs, gpu, SCALING_GPUS, flags.pairs_per_step);
      print(scaling, () => scalingText(scaling, assume));
      return;
    }
    const ranks = { size: nproc * nnodes, localSize: nproc };
    const memory = flags.gpu ? { device: GPUS[flags.gpu].memory } : {};
    const { plan, shortage } = draftFrom(config, inputs, { ranks, memory });
    const volume = stepVolume(volumeOptions(config, inputs.shape, plan));
    print({ ...plan, volume }, () => planText(plan, volume));
    if (shortage) throw shortage;
  })
    .description("Show the memory and the steps a recipe needs, without touching a device.")
    .addOption(accelerateOption())
    .addOption(
      new Option("--nproc <n>", "of one of n processes on each machine")
        .argParser(wholeNumber)
        .default(1),
    )
    .addOption(new Option("--nnodes <n>", "on n machines").argParser(wholeNumber).default(1))
    .addOption(
      new Option(
        "--gpu <name>",
        "for a GPU of this kind, instead of this machine's memory",
      ).choices(Object.keys(GPUS)),
    )
    .option(
      "--assume <pairs>",
      "instead of reading data: 60000x120+300+300 is 60,000 pairs of 120 prompt tokens and two responses of 300",
    )
    .option(
      "--scaling",
      `predicted efficiency on ${SCALING_GPUS.join(", ")} GPUs (--gpu, default h100)`,
    )
    .addOption(
      new Option(
        "--pairs_per_step <n>",
        "with --scaling: the same step on any number of GPUs, instead of one that grows with them",
      ).argParser(wholeNumber),
    )
    .option("--json", "as one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  simper-native plan configs/quickstart.yaml --bf16 true
  simper-native plan my-run.yaml --nproc 8 --zero_stage 3 --gpu h100`,
    );
}
