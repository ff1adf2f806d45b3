/**
 * Preference fine-tuning with SimPER from Node.js.
 *
 * @example
 * import { loadRecipe, train } from "simper-native";
 * const { config, baseDir } = loadRecipe("configs/quickstart.yaml", ["--max_steps", "10"]);
 * await train({ config, baseDir });
 *
 * @packageDocumentation
 */
export { defineConfig, type LoadOptions, loadRecipe, type Recipe } from "./config/load.js";
export type { Config, RecipeInput } from "./config/schema.js";
export * from "./errors.js";
export { type GenerateOptions, generate } from "./inference/generate.js";
export { type InferenceOptions, type ModelSource, readModel } from "./inference/model.js";
export { greedy, type Sampler, temperatureSampler } from "./inference/sample.js";
export { type Score, score } from "./inference/score.js";
export {
  combineReporters,
  createConsoleReporter,
  createJsonlReporter,
  type EvalRecord,
  type Reporter,
  type RunInfo,
  type RunSummary,
  type StepRecord,
} from "./report/index.js";
export { makePlan } from "./train/make-plan.js";
export type { MemoryLine, RunPlan } from "./train/plan.js";
export { type TrainOptions, train } from "./train/trainer.js";
