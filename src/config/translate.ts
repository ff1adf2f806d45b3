import path from "node:path";
import type { RecipeInput } from "./schema.js";

/**
 * Keys of other trainers that say what one of ours says, in another form.
 * `join` makes our value of theirs; `others` are the values of keys that go with it.
 */
export interface Translation {
  readonly name: keyof RecipeInput;
  readonly join: (value: unknown, others: ReadonlyMap<string, unknown>) => unknown;
  /** The key without which it says nothing. */
  readonly needs?: string;
}

const splits = (_: unknown, others: ReadonlyMap<string, unknown>): unknown[] => [
  others.get("dataset_train_split") ?? "train",
  others.get("dataset_test_split") ?? "test",
];

/** TRL names one data set and its two splits, each with a key of its own. */
export const translations: Readonly<Record<string, Translation>> = {
  dataset_name: { name: "datasetMixer", join: (value) => ({ [String(value)]: 1 }) },
  dataset_config: { name: "datasetConfigs", join: (value) => [value], needs: "dataset_name" },
  dataset_train_split: { name: "datasetSplits", join: splits },
  dataset_test_split: { name: "datasetSplits", join: splits },
};

/** Readings of a `dataset_mixer` that is no map: a path, or a list of paths, each used whole. */
export function mixerOf(value: unknown): unknown[] {
  const paths = Array.isArray(value) ? (value as unknown[]) : [value];
  if (!paths.every((item) => typeof item === "string" && item !== "")) return [];
  return [Object.fromEntries(paths.map((item) => [item, 1]))];
}

/** Keys that transformers fills in where they are null. */
export const nullIsUnset: ReadonlySet<string> = new Set(["outputDir"]);

/** Values of other trainers that name what ours do. */
export const synonyms: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  lossType: { nll: "sft", chunked_nll: "sft" },
};

/**
 * Which of two losses a recipe is for that names none. SimPER's published files and SimPO's have the same keys, down
 * to a gamma_beta_ratio that SimPER does not read: they differ in what the run is called, here in the order of trust.
 */
export function lossByName(
  names: Readonly<Record<"hub_model_id" | "run_name" | "output_dir", unknown>>,
): { readonly lossType: "SimPER" | "sigmoid"; readonly because: string } | undefined {
  const { hub_model_id, run_name, output_dir } = names;
  // The folders above the last one say where runs are kept, not which one this is.
  const folder = typeof output_dir === "string" ? path.basename(output_dir) : undefined;
  for (const [key, name] of Object.entries({ hub_model_id, run_name, output_dir: folder })) {
    if (typeof name !== "string") continue;
    const simper = /simper/i.test(name);
    if (simper === /simpo/i.test(name)) continue;
    return { lossType: simper ? "SimPER" : "sigmoid", because: `${key} is ${name}` };
  }
  return undefined;
}

/** Keys that only recipes of next-token training have: with one of them and no loss_type, that is meant. */
export const sftOnlyKeys = [
  "assistant_only_loss",
  "completion_only_loss",
  "dataset_text_field",
  "eval_packing",
  "max_seq_length",
  "packing",
  "packing_strategy",
] as const;
