import { rm } from "node:fs/promises";
import path from "node:path";
import { writeFileAtomic } from "../checkpoint/files.js";

/** Numbers of a finished run, under the names of Hugging Face's Trainer. */
export type Metrics = Readonly<Record<string, number>>;

/**
 * `train_*` metrics of a run. Rates count what this process did since the start or the resume; the loss and
 * `total_flos` belong to the whole run.
 */
export function trainMetrics(run: {
  readonly epoch: number;
  readonly totalFlos: number;
  readonly trainLoss: number;
  /** Examples of the train split. */
  readonly samples: number;
  /** Steps and examples that this process trained on, in `seconds`. */
  readonly done: { readonly steps: number; readonly examples: number };
  readonly seconds: number;
}): Metrics {
  const { done, seconds } = run;
  return {
    epoch: run.epoch,
    total_flos: run.totalFlos,
    train_loss: run.trainLoss,
    train_runtime: seconds,
    train_samples: run.samples,
    train_samples_per_second: done.examples / seconds,
    train_steps_per_second: done.steps / seconds,
  };
}

/** `eval_*` metrics of a run, from the entry of an evaluation in the log history. */
export function evaluationMetrics(
  evaluation: Metrics | undefined,
  samples: number,
): Metrics | undefined {
  if (evaluation === undefined) return undefined;
  const { step: _step, ...metrics } = evaluation;
  return { ...metrics, eval_samples: samples };
}

/**
 * Writes `train_results.json`, `eval_results.json` and, with both in it, `all_results.json`, as the Trainer's
 * save_metrics does. Without `evaluation` an eval_results.json of an earlier run is removed.
 *
 * @throws CheckpointError when a file cannot be written.
 */
export async function writeResults(
  outputDir: string,
  train: Metrics,
  evaluation: Metrics | undefined,
): Promise<void> {
  const write = (name: string, metrics: Metrics) => {
    const sorted = Object.fromEntries(Object.entries(metrics).sort(([a], [b]) => (a < b ? -1 : 1)));
    const file = path.join(outputDir, `${name}_results.json`);
    return writeFileAtomic(file, `${JSON.stringify(sorted, null, 4)}\n`);
  };
  await write("train", train);
  if (evaluation) await write("eval", evaluation);
  else await rm(path.join(outputDir, "eval_results.json"), { force: true });
  await write("all", { ...train, ...evaluation });
}
