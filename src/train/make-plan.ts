import { readConfigFile } from "../checkpoint/model-directory.js";
import type { Config } from "../config/schema.js";
import { readModelShape } from "../model/index.js";
import { loadExamples } from "./examples.js";
import { resolveModelDir, resolveTokenizerDir } from "./model-source.js";
import { planRun, type RunPlan } from "./plan.js";

/** Plans a recipe from its model's config and its data; no device is touched. */
export async function makePlan(config: Config, baseDir = "."): Promise<RunPlan> {
  const modelDir = resolveModelDir(config.modelNameOrPath, baseDir);
  const shape = readModelShape(await readConfigFile(modelDir));
  const data = await loadExamples(config, shape.vocabSize, {
    modelDir: resolveTokenizerDir(config, baseDir),
    baseDir,
    needTest: config.doEval,
  });
  return planRun(config, shape, data.train, data.test);
}
