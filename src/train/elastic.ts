import path from "node:path";
import type { Config } from "../config/schema.js";
import { type PlanOptions, recipeExamplesPerStep } from "./plan.js";
import type { Checkpoint, RunState } from "./run-checkpoint.js";

/** What a checkpoint says of the processes that wrote it. */
export type RankSettings = Required<Pick<RunState, "ranks" | "zeroStage" | "examplesPerRank">>;

/** What goes into the checkpoints of a run of `size` processes. */
export function rankSettings(config: Config, size: number): RankSettings {
  const examplesPerRank = recipeExamplesPerStep(config, 1);
  return { ranks: size, zeroStage: config.zeroStage, examplesPerRank };
}

/** What a resumed run keeps of its checkpoint whatever its own number of processes would make of the recipe. */
export interface KeptPlan extends Pick<PlanOptions, "tokens" | "examplesPerStep"> {
  readonly notices: readonly string[];
}

/**
 * Decides what a run of `size` processes keeps of the checkpoint it goes on from.
 *
 * Examples per optimizer step decide what a step is, the position in the data and the schedule: where the recipe's
 * share of a process is what it was, the checkpoint's number stays, with as many processes as there are now. A
 * recipe with another share says its own number, which has to be the checkpoint's (`checkAgreement`).
 *
 * Tokens per micro-batch decide the order of sums, so the same number of processes keeps them and its bits; another
 * number has other sums and other memory, and is planned anew.
 */
export function keptPlan(
  checkpoint: Checkpoint | undefined,
  config: Config,
  size: number,
): KeptPlan {
  if (checkpoint === undefined) return { notices: [] };
  const { examplesPerStep, maxTokens, ranks = 1 } = checkpoint.state;
  const { examplesPerRank = examplesPerStep / ranks } = checkpoint.state;
  const tokens = ranks === size ? maxTokens : undefined;
  const share = recipeExamplesPerStep(config, 1);
  if (share !== examplesPerRank) return { tokens, notices: [] };
  const planned = share * size;
  const notices =
    planned === examplesPerStep
      ? []
      : [
          `${path.basename(checkpoint.dir)} was written by ${processes(ranks)} with ${examplesPerStep} examples per optimizer step; ` +
            `this run of ${processes(size)} keeps them (the recipe alone would make it ${planned})`,
        ];
  return { tokens, examplesPerStep, notices };
}

function processes(count: number): string {
  return count === 1 ? "one process" : `${count} processes`;
}
