import { readConfigFile } from "../checkpoint/model-directory.js";
import type { Config } from "../config/schema.js";
import { createLoss } from "../loss/index.js";
import { readModelShape } from "../model/index.js";
import { bestRule } from "./best-model.js";
import { loadExamples } from "./examples.js";
import { resolveModelDir, resolveTokenizerDir } from "./model-source.js";
import { planRun, type RunPlan } from "./plan.js";

/** Plans a recipe from its model's config and its data; no device is touched. */
export async function makePlan(config: Config, baseDir = "."): Promise<RunPlan> {
  const modelDir = resolveModelDir(config.modelNameOrPath, baseDir);
  const shape = readModelShape(await readConfigFile(modelDir));
  bestRule(config, createLoss(config)); // as train does, before data are read
  const data = await loadExamples(config, shape.vocabSize, {
    modelDir: resolveTokenizerDir(config, baseDir),
    baseDir,
    needTest: config.doEval,
  });
  return planRun(config, shape, data.train, data.test);
}
