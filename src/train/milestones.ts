import type { Config } from "../config/schema.js";
import { stepPosition } from "../data/order.js";

/** When things happen in a run: a pure function of the recipe and the number of examples. */
export interface Milestones {
  /** Epochs done after `step` optimizer steps: 1.5 is half-way through the second. */
  epochsAfter(step: number): number;
  /** Whether the test split is evaluated after `step` (0: before the first one). */
  evaluationDue(step: number): boolean;
  /** Whether a checkpoint is written after `step`. */
  saveDue(step: number): boolean;
}

/** Optimizer steps between two events: given as such, or below 1 as a share of the run. */
export function wholeSteps(every: number, totalSteps: number): number {
  return every < 1 ? Math.ceil(every * totalSteps) : every;
}

export function createMilestones(
  config: Config,
  run: { readonly count: number; readonly perStep: number; readonly totalSteps: number },
): Milestones {
  const evalSteps = wholeSteps(config.evalSteps, run.totalSteps);
  const saveSteps = wholeSteps(config.saveSteps, run.totalSteps);
  const epochsAfter = (step: number) => (step === 0 ? 0 : stepPosition(run, step - 1).epochsDone);
  const due = (strategy: "no" | "steps" | "epoch", every: number, step: number) =>
    strategy === "steps"
      ? step % every === 0
      : strategy === "epoch" && Number.isInteger(epochsAfter(step));
  return {
    epochsAfter,
    evaluationDue: (step) => {
      if (!config.doEval) return false;
      if (step === 0) return config.evalOnStart;
      if (step === run.totalSteps) return true;
      const waited = config.evalStrategy === "epoch" ? epochsAfter(step) : step;
      return waited >= config.evalDelay && due(config.evalStrategy, evalSteps, step);
    },
    saveDue: (step) => {
      if (step === 0) return false;
      // The last weights may be the best ones.
      if (config.loadBestModelAtEnd && step === run.totalSteps) return true;
      return due(config.saveStrategy, saveSteps, step);
    },
  };
}
