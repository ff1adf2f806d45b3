/**
 * Preference fine-tuning with SimPER from Node.js: training, scoring and generation.
 * The ops themselves are in `simper-native/native`.
 *
 * @example
 * import { loadRecipe, train } from "simper-native";
 * const { config, baseDir } = loadRecipe("configs/quickstart.yaml", ["--max_steps", "10"]);
 * await train({ config, baseDir, onStep: ({ step, loss }) => console.log(step, loss) });
 *
 * @module simper-native
 */
export { defineConfig, type LoadOptions, loadRecipe, type Recipe } from "./config/load.js";
export type { Config, RecipeInput } from "./config/schema.js";
export type { Message } from "./data/types.js";
export * from "./errors.js";
export { type GenerateOptions, generate } from "./inference/generate.js";
export { LoadedModel, loadModel } from "./inference/loaded-model.js";
export {
  type InferenceOptions,
  type ModelOptions,
  type ModelSource,
  readModel,
} from "./inference/model.js";
export { greedy, type Sampler, temperatureSampler } from "./inference/sample.js";
export { type Score, type ScoreOptions, score } from "./inference/score.js";
export {
  type HostGradient,
  type HostPair,
  type HostPairTerm,
  type HostResponse,
  type HostSequenceTerm,
  hostPairLoss,
  hostSequenceLoss,
  type Loss,
} from "./loss/index.js";
export type {
  DefaultRope,
  DynamicRope,
  LinearRope,
  Llama3Rope,
  ModelShape,
  Rope,
  YarnRope,
} from "./model/index.js";
export type { ZeroStage } from "./parallel/layout.js";
export {
  type ConsoleOptions,
  combineReporters,
  createConsoleReporter,
  createJsonlReporter,
  createTensorboardReporter,
  type EvalRecord,
  type PairMetric,
  type ProfileLine,
  type ProfileRecord,
  pairMetrics,
  type Reporter,
  type RunInfo,
  type RunSummary,
  type StepRecord,
} from "./report/index.js";
export type { AssumedPairs } from "./train/assumed-data.js";
export type { BatchLimits } from "./train/buffers.js";
export { type MakePlanOptions, makePlan } from "./train/make-plan.js";
export type { MemoryLine, RankCounts, RunPlan, StageMemory } from "./train/plan.js";
export type { AvailableMemory } from "./train/plan-memory.js";
export type { ProfileRequest, StepRange } from "./train/profiler.js";
export { type TrainOptions, train } from "./train/trainer.js";
