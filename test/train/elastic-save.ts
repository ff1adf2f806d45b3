import { mkdirSync } from "node:fs";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import { readModelShape } from "#src/model/index.js";
import { modelBlocks } from "#src/train/plan.js";
import { ResidentModel } from "#src/train/resident-model.js";
import { restoreCheckpoint, saveModel } from "#src/train/run-checkpoint.js";

/** Reads a checkpoint in this process alone and writes its model into a folder, in files of at most so many bytes. */
export async function saveAgain(
  dir: string,
  recipe: RecipeInput & { outputDir: string },
  folder: string,
  maxShardBytes: number,
): Promise<void> {
  const { config } = defineConfig(recipe);
  const source = await readConfigFile(dir);
  const shape = readModelShape(source);
  const model = new ResidentModel({
    device: "cpu",
    threads: 1,
    shape,
    blocks: modelBlocks(shape),
    dtype: config.bf16 ? "bf16" : "f32",
    training: true,
  });
  try {
    mkdirSync(folder);
    await restoreCheckpoint(model, dir);
    await saveModel(model, folder, source, config, undefined, maxShardBytes);
  } finally {
    model.dispose();
  }
}
