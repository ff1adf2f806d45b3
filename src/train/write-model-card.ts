import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import * as yaml from "js-yaml";
import { writeFileAtomic } from "../checkpoint/files.js";
import { toRecipeKey } from "../config/names.js";
import type { Config } from "../config/schema.js";
import { isOwnCard, type ModelCard, modelCardText } from "../report/model-card.js";
import type { RunData } from "./examples.js";

/** The facts of a card that a run has at hand when it ends; the rest is read off the recipe and the data. */
export type CardFacts = Pick<
  ModelCard,
  "loss" | "train" | "eval" | "history" | "weights" | "environment"
>;

/**
 * Writes the model card: README.md, or MODEL_CARD.md where a README.md is there that is not ours. A file that is
 * not ours is never replaced.
 *
 * @param modelDir folder of the model that was trained
 * @returns a sentence for the user, where the card is not in README.md
 * @throws CheckpointError when it cannot be written.
 */
export async function writeModelCard(
  config: Config,
  modelDir: string,
  data: Pick<RunData, "train" | "test" | "counts">,
  facts: CardFacts,
): Promise<string | undefined> {
  const { outputDir } = config;
  const [readme, other] = ["README.md", "MODEL_CARD.md"].map((name) => path.join(outputDir, name));
  const target = [readme!, other!].find(mayReplace);
  if (target === undefined) {
    return `${outputDir}: README.md and MODEL_CARD.md are not ours, so no model card is written`;
  }
  const card: ModelCard = {
    ...facts,
    title: config.runName ?? path.basename(path.resolve(outputDir)),
    baseModel: publicName(config.modelNameOrPath),
    license: licenseOf(modelDir),
    datasets: Object.entries(config.datasetMixer).map(([name, fraction]) => ({
      name: publicName(name),
      fraction,
    })),
    data: (["train", "test"] as const).flatMap((split) => {
      const { rows, dropped, truncated } = data.counts[split];
      const used = data[split].count;
      return rows > 0 ? [{ split, rows, used, dropped, truncated }] : [];
    }),
    recipe: recipeKeys(config),
  };
  await writeFileAtomic(target, modelCardText(card));
  if (target === readme) return undefined;
  return `${readme} was there and is not ours; the model card is in ${target}`;
}

/** Whether nothing is there, or a card of an earlier run. */
function mayReplace(file: string): boolean {
  if (!existsSync(file)) return true;
  try {
    return isOwnCard(readFileSync(file, "utf8"));
  } catch {
    return false; // a folder, or nothing that we may read
  }
}

/** A path of this machine without its folders; what could be a name on the hub stays. */
function publicName(name: string): string {
  const local = path.isAbsolute(name) || name.startsWith(".");
  return local ? path.basename(path.resolve(name)) : name;
}

/** Every key that has a value, as a recipe spells it. */
export function recipeKeys(config: Config): Record<string, unknown> {
  const entries = Object.entries(config).filter(
    ([, value]) => value !== null && value !== undefined,
  );
  return Object.fromEntries(entries.map(([name, value]) => [toRecipeKey(name), value]));
}

/** The licence that the base model's own card names; nothing where it has none or cannot be read. */
export function licenseOf(modelDir: string): Record<string, string> {
  const file = path.join(modelDir, "README.md");
  try {
    const [, about] = /^---\r?\n([\s\S]*?)\r?\n---\r?\n/.exec(readFileSync(file, "utf8")) ?? [];
    const fields = (about === undefined ? {} : yaml.load(about)) as Record<string, unknown>;
    const keys = ["license", "license_name", "license_link"];
    return Object.fromEntries(
      keys.flatMap((key) => (typeof fields[key] === "string" ? [[key, fields[key]]] : [])),
    );
  } catch {
    return {}; // the licence is not known
  }
}
