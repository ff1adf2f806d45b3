export { type ConsoleOptions, createConsoleReporter } from "./console.js";
export { createJsonlReporter } from "./jsonl.js";
export {
  type OpTotal,
  type ProfileLine,
  type ProfileRecord,
  profileRecord,
  profileTable,
} from "./profile.js";
export { recipeReporters } from "./recipe-reporters.js";
export {
  combineReporters,
  type EvalRecord,
  type PairMetric,
  pairMetrics,
  type Reporter,
  type RunInfo,
  type RunSummary,
  type StepRecord,
} from "./records.js";
export { createTensorboardReporter } from "./tensorboard.js";
export {
  type Best,
  createTrainerState,
  type TrainerState,
  unloggedSteps,
} from "./trainer-state.js";
