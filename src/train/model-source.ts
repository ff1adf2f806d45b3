import { existsSync } from "node:fs";
import path from "node:path";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { Together } from "../checkpoint/together.js";
import type { WeightMover } from "../checkpoint/weights.js";
import { type ProcessGroup, soloGroup } from "../parallel/group.js";
import type { ResidentModel } from "./resident-model.js";

/** A model directory as named by a recipe: from the current directory, else from the recipe's folder. */
export function resolveModelDir(name: string, baseDir: string): string {
  const besideRecipe = path.resolve(baseDir, name);
  return !existsSync(name) && existsSync(besideRecipe) ? besideRecipe : name;
}

/** Where a recipe's tokenizer lies: its own folder where the recipe names one, else the model's. */
export function resolveTokenizerDir(
  config: { readonly modelNameOrPath: string; readonly tokenizerNameOrPath: string | null },
  baseDir: string,
): string {
  return resolveModelDir(config.tokenizerNameOrPath ?? config.modelNameOrPath, baseDir);
}

/**
 * Loads the weights of a model directory; each rank reads what it holds.
 *
 * @throws CheckpointError naming what does not fit, on every rank when it is so on one.
 */
export async function loadWeights(
  model: ResidentModel,
  dir: string,
  group: ProcessGroup = soloGroup(),
): Promise<void> {
  const tied = model.shape.tiedEmbeddings;
  // Files carry tensors that are computed or shared here: no reason to refuse a model.
  const ignored = (name: string) =>
    name.endsWith(".rotary_emb.inv_freq") || (tied && name === "lm_head.weight");
  const together = new Together(group, dir);
  await together.attempt(async () => {
    const file = await openSafetensors(dir);
    try {
      const load = (mover: WeightMover) => mover.load(file, model.weights(), dir, ignored);
      await model.withMover(load, "state");
    } finally {
      await file.close();
    }
  });
  await together.agree("reading of the model");
  await model.store.shareWeights();
}
