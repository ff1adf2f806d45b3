import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { toCodeName } from "#src/config/names.js";
import type { DeviceName } from "#src/native/index.js";
import { makeTinyModel } from "../model/tiny.js";
import { root } from "../support/paths.js";
import { runRanks } from "../support/ranks.js";
import { gqaPairs, outputOf, weightBytes } from "../train/support.js";

const cli = path.join(root, "dist", "cli.js");
const program = path.join(root, "dist-test", "train", "rank.js");

/** Pairs of an optimizer step; the data have 14, so that every second step has 2 and some ranks have none. */
const PAIRS = 12;

/** How a step is cut: all pairs of a rank at once, or micro-batches of no more than the longest pair. */
export const SPLITS = {
  whole: (ranks: number) => ({
    per_device_train_batch_size: PAIRS / ranks,
    gradient_accumulation_steps: 1,
  }),
  cut: (ranks: number) => ({
    per_device_train_batch_size: 1,
    gradient_accumulation_steps: PAIRS / ranks,
    max_tokens_per_micro_batch: 121,
  }),
} as const;

/** A run of the command line. */
export interface ZeroRun {
  readonly ranks: number;
  readonly stage: 0 | 1 | 2 | 3;
  readonly split: keyof typeof SPLITS;
  /** Recipe keys besides the usual ones. */
  readonly changes?: Readonly<Record<string, unknown>>;
  readonly device?: DeviceName;
}

/** What a run came to. */
export interface Curve {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  /** Of the metrics without times and of the final weights. */
  readonly digest: string;
}

/** Trains a tiny model under mpirun as the recipe of `run` says, in a folder of its own below `folder`. */
export async function train(run: ZeroRun, folder: string): Promise<Curve> {
  const { ranks, stage, split, changes = {}, device = "cpu" } = run;
  const outputDir = path.join(folder, `${ranks}-${stage}-${split}-${Math.random()}`);
  const model = path.join(folder, "model");
  // Layers enough that they take turns in their slots; a tied head has gradients at both ends of a walk.
  if (!existsSync(model))
    await makeTinyModel(model, { tokenizer: false, config: { num_hidden_layers: 5 } });
  const recipe = {
    model_name_or_path: model,
    dataset_mixer: { [gqaPairs]: 1 },
    shuffle: false,
    loss_type: "SimPER",
    max_steps: 20,
    learning_rate: 0.002,
    lr_scheduler_type: "cosine",
    warmup_ratio: 0.1,
    weight_decay: 0.1,
    max_length: 128,
    max_prompt_length: 64,
    do_eval: false,
    save_strategy: "no",
    zero_stage: stage,
    output_dir: outputDir,
    ...SPLITS[split](ranks),
    ...changes,
  };
  const file = `${outputDir}.yaml`;
  writeFileSync(file, JSON.stringify(recipe));
  const { code, stderr } = await (device === "cpu"
    ? runRanks(ranks, cli, ["train", "--device", device, file])
    : runRanks(ranks, program, [withoutCommandLine(file, recipe, device)]));
  assert.equal(code, 0, `${JSON.stringify(run)}: ${stderr}`);
  const { steps } = outputOf(outputDir);
  const losses = steps.map((step) => step.loss!);
  const norms = steps.map((step) => step.grad_norm!);
  const hash = createHash("sha256").update(weightBytes(outputDir));
  return { losses, norms, digest: hash.update(JSON.stringify([losses, norms])).digest("hex") };
}

/** For devices that are there for tests alone, and not on the command line. */
function withoutCommandLine(file: string, recipe: object, device: DeviceName): string {
  const names = Object.entries(recipe).map(([key, value]) => [toCodeName(key), value]);
  const task = { recipe: Object.fromEntries(names), device };
  writeFileSync(file, JSON.stringify(task));
  return file;
}

/** The largest |a − b| ÷ (relative·|b| + absolute) of two curves: at most 1 where they agree. */
export function distance(
  ours: readonly number[],
  theirs: readonly number[],
  [relative, absolute]: readonly [number, number],
): number {
  assert.equal(ours.length, theirs.length);
  const parts = ours.map(
    (a, i) => Math.abs(a - theirs[i]!) / (relative * Math.abs(theirs[i]!) + absolute),
  );
  assert.ok(parts.every(Number.isFinite), ours.join(", "));
  return Math.max(...parts);
}
