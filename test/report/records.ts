import type { RunInfo, StepRecord } from "#src/report/index.js";

/** A run of ten steps that logs every fourth. */
export function run(outputDir: string, resumedStep = 0): RunInfo {
  return {
    runName: null,
    outputDir,
    totalSteps: 10,
    resumedStep,
    numTrainEpochs: 1.5,
    loggingSteps: 4,
    evalSteps: 5,
    saveSteps: 5,
    perDeviceTrainBatchSize: 2,
  };
}

/** Numbers that a test can tell apart by their step. */
export function record(step: number): StepRecord {
  return {
    step,
    epoch: step / 10,
    loss: -step / 100,
    grad_norm: step,
    learning_rate: step * 1e-6,
    "rewards/chosen": -1,
    "rewards/rejected": -2,
    "rewards/accuracies": step % 2,
    "rewards/margins": step / 10,
    "logps/chosen": -1,
    "logps/rejected": -2,
    "simper/chosen": 0.4,
    "simper/rejected": 0.1,
    num_tokens: 100 * step,
    num_computed_tokens: 80 * step,
    step_time: 0.5,
    tokens_per_second: 200 * step,
    pairs_per_second: 8,
  };
}

/** An evaluation after a step. */
export const evaluation = (step: number) => ({
  step,
  epoch: step / 10,
  eval_loss: -0.5,
  "eval_rewards/accuracies": 0.75,
  "eval_rewards/margins": 0.25,
});
