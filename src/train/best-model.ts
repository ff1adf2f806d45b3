import { existsSync } from "node:fs";
import path from "node:path";
import type { Config } from "../config/schema.js";
import { CheckpointError, ConfigError } from "../errors.js";
import type { Loss } from "../loss/index.js";
import { type Best, pairMetrics } from "../report/index.js";
import type { Checkpoint } from "./run-checkpoint.js";

/** How evaluations are compared. */
export interface BestRule {
  /** The metric, with its `eval_`. */
  readonly metric: string;
  readonly greaterIsBetter: boolean;
}

/**
 * The rule of a recipe, with the defaults of Hugging Face's TrainingArguments: `loss` where the best model is to be
 * loaded, and lower is better for names that end with "loss". None: no evaluation is better than another.
 *
 * @throws ConfigError when the run will not have such a metric.
 */
export function bestRule(config: Config, loss: Loss): BestRule | undefined {
  const name = config.metricForBestModel ?? (config.loadBestModelAtEnd ? "loss" : null);
  if (name === null || !config.doEval) return undefined;
  const metric = name.startsWith("eval_") ? name : `eval_${name}`;
  const known = evaluationNames(loss);
  if (!known.includes(metric)) {
    throw new ConfigError(
      `metric_for_best_model: expected a metric of the run's evaluations, received "${name}"; there will be ` +
        known.join(", "),
      { hint: "names may be given with or without eval_" },
    );
  }
  return { metric, greaterIsBetter: config.greaterIsBetter ?? !name.endsWith("loss") };
}

/** Metrics that evaluations of a run with this loss have, without what a clock decides. */
function evaluationNames(loss: Loss): string[] {
  const pairs = loss.examples === "pairs" ? pairMetrics : [];
  const had = pairs.filter((name) => name !== "sft_loss" || (loss.sftWeight ?? 0) > 0);
  return ["loss", ...had].map((name) => `eval_${name}`);
}

/** Whether `value` is strictly better than the best so far; what is no number never is. */
export function isBetter(
  rule: BestRule,
  value: number | undefined,
  best: Best | undefined,
): value is number {
  if (typeof value !== "number" || Number.isNaN(value)) return false;
  if (best === undefined) return true;
  return rule.greaterIsBetter ? value > best.metric : value < best.metric;
}

/** `eval_loss, lower is better`, for messages and checkpoints. */
export function describeRule({ metric, greaterIsBetter }: BestRule): string {
  return `${metric}, ${greaterIsBetter ? "higher" : "lower"} is better`;
}

/**
 * The best evaluation before the checkpoint that a run goes on from. Its own checkpoint is looked for beside
 * that one first, for folders may have been moved.
 *
 * @param needed its weights may be the result
 * @throws CheckpointError when they are needed and gone.
 */
export function bestBefore(checkpoint: Checkpoint, needed: boolean): Best | undefined {
  const saved = JSON.parse(checkpoint.trainerState) as Record<string, unknown>;
  const { best_metric: metric, best_model_checkpoint: folder } = saved;
  if (typeof metric !== "number" || typeof folder !== "string") return undefined;
  const beside = path.join(path.dirname(checkpoint.dir), path.basename(folder));
  const found = [beside, folder].find((dir) => existsSync(dir));
  if (found === undefined && needed) {
    throw new CheckpointError(
      `${checkpoint.dir}: the best checkpoint before it, ${folder}, is not there`,
      { hint: "put it back beside the other one, or set load_best_model_at_end: false" },
    );
  }
  return { metric, checkpoint: found ?? folder };
}
