import { readConfigFile } from "../checkpoint/model-directory.js";
import type { Config } from "../config/schema.js";
import { ConfigError } from "../errors.js";
import { createLoss } from "../loss/index.js";
import { type ModelShape, readModelShape } from "../model/index.js";
import { type AssumedPairs, assumedData, noData } from "./assumed-data.js";
import { bestRule } from "./best-model.js";
import { loadExamples } from "./examples.js";
import { resolveModelDir, resolveTokenizerDir } from "./model-source.js";
import {
  type DataFacts,
  type DraftPlan,
  draftPlan,
  type RankCounts,
  type RunPlan,
} from "./plan.js";
import type { AvailableMemory } from "./plan-memory.js";

/** What a recipe is planned for. */
export interface MakePlanOptions {
  /** Default: one process. */
  readonly ranks?: RankCounts;
  /** Default: the memory of this machine, and no device with memory of its own. */
  readonly memory?: AvailableMemory;
  /** Stand for the recipe's data, which then are not read. */
  readonly assume?: AssumedPairs | undefined;
}

/** A recipe's model and data, as far as a plan depends on them. */
export interface PlanInputs {
  readonly shape: ModelShape;
  readonly train: DataFacts;
  readonly test: DataFacts;
}

/**
 * Plans a recipe from its model's config and its data; no device is touched.
 * @throws MemoryError when it does not fit.
 */
export async function makePlan(
  config: Config,
  baseDir = ".",
  options: MakePlanOptions = {},
): Promise<RunPlan> {
  const inputs = await readPlanInputs(config, baseDir, options.assume);
  const { plan, shortage } = draftFrom(config, inputs, options);
  if (shortage) throw shortage;
  return plan;
}

/** As {@link makePlan}, from what was read; a run that does not fit has its smallest plan and the reason. */
export function draftFrom(
  config: Config,
  { shape, train, test }: PlanInputs,
  { ranks, memory = {} }: MakePlanOptions,
): DraftPlan {
  return draftPlan(config, shape, train, test, memory, ranks ? { ranks } : {});
}

/** Reads the model's config and the recipe's data, or assumes pairs in their place. */
export async function readPlanInputs(
  config: Config,
  baseDir: string,
  assume?: AssumedPairs,
): Promise<PlanInputs> {
  const modelDir = resolveModelDir(config.modelNameOrPath, baseDir);
  const shape = readModelShape(await readConfigFile(modelDir));
  const loss = createLoss(config);
  bestRule(config, loss); // as train does, before data are read
  if (assume) {
    if (loss.examples !== "pairs") {
      throw new ConfigError(
        `--assume: expected a loss on pairs, received loss_type ${config.lossType}`,
        { hint: "leave it out: the recipe's own data are then read" },
      );
    }
    return { shape, train: assumedData(assume, config.prefixSharing), test: noData };
  }
  const data = await loadExamples(config, shape.vocabSize, {
    modelDir: resolveTokenizerDir(config, baseDir),
    baseDir,
    needTest: config.doEval,
  });
  return { shape, train: data.train, test: data.test };
}
