import * as z from "zod";
import {
  DEFAULT_MAX_LENGTH,
  DEFAULT_MAX_PROMPT_LENGTH,
  dataFields,
  dataKeysWithoutEffect,
} from "../data/schema.js";
import { checkLossOptions, lossFields, lossKeysWithoutEffect } from "../loss/schema.js";
import { checkSchedule, optimFields } from "../optim/schema.js";
import { parallelFields } from "../parallel/schema.js";
import { reportersWithoutEffect, reportFields } from "../report/schema.js";
import { checkTrainOptions, trainFields } from "../train/schema.js";
import { modelFields } from "./model-schema.js";
import { toRecipeKey } from "./names.js";

/** Every key of a recipe, each declared beside the code that reads it. */
export const recipeSchema = z.strictObject({
  ...modelFields,
  ...dataFields,
  ...trainFields,
  ...optimFields,
  ...lossFields,
  ...parallelFields,
  ...reportFields,
});

/** What a recipe may say, in code's spelling: everything with a default may be left out. */
export type RecipeInput = z.input<typeof recipeSchema>;
type Parsed = z.output<typeof recipeSchema>;

/** The keys whose default depends on other keys, with the types they have once it is known. */
interface Resolved {
  /** Whether the test split is evaluated at all; at the end it then always is. */
  doEval: boolean;
  evalStrategy: "no" | "steps" | "epoch";
  evalSteps: number;
  saveDtype: "float32" | "bfloat16";
  /** false: start anew; true: the newest checkpoint in outputDir; else the path of one. */
  resumeFromCheckpoint: boolean | string;
  maxLength: number;
  maxPromptLength: number;
}

/** A recipe with every default filled in. */
export type Config = Readonly<Omit<Parsed, keyof Resolved> & Resolved>;

/** Other spellings of a key that recipes use. */
export const aliases: Readonly<Record<string, keyof RecipeInput>> = {
  evaluation_strategy: "evalStrategy",
  dtype: "torchDtype",
  max_seq_length: "maxLength",
  dataset_text_field: "textColumn",
  per_gpu_train_batch_size: "perDeviceTrainBatchSize",
  per_gpu_eval_batch_size: "perDeviceEvalBatchSize",
};

/** TrainingArguments turns do_eval on wherever an eval_strategy is given, even from an explicit false. */
function strategyWins({ evalStrategy }: Pick<Parsed, "evalStrategy">): boolean {
  return evalStrategy !== null && evalStrategy !== "no";
}

/** True where max_prompt_length decides anything. */
function cutsPrompts({ lossType, dataSemantics }: Parsed | Config): boolean {
  return lossType !== "sft" && dataSemantics === "reference";
}

/** Whether the prompts that a recipe keeps fill the default of max_length; other trainers' defaults are longer. */
function roomNeeded(config: Parsed | Config): boolean {
  return cutsPrompts(config) && (config.maxPromptLength ?? 0) >= DEFAULT_MAX_LENGTH;
}

/** Fills in the defaults that depend on other keys, as Hugging Face's TrainingArguments does. */
export function resolveDefaults(parsed: Parsed): Config {
  const evalStrategy = parsed.evalStrategy ?? (parsed.evalSteps === null ? "no" : "steps");
  const implied = evalStrategy !== "no" || parsed.evalOnStart;
  const maxPromptLength = parsed.maxPromptLength ?? DEFAULT_MAX_PROMPT_LENGTH;
  const doEval = strategyWins(parsed) || (parsed.doEval ?? implied);
  return {
    ...parsed,
    doEval,
    evalStrategy: doEval ? evalStrategy : "no",
    evalSteps: parsed.evalSteps ?? parsed.loggingSteps,
    saveDtype: parsed.saveDtype ?? (parsed.bf16 ? "bfloat16" : "float32"),
    resumeFromCheckpoint: parsed.resumeFromCheckpoint ?? false,
    maxLength: parsed.maxLength ?? (roomNeeded(parsed) ? 2 * maxPromptLength : DEFAULT_MAX_LENGTH),
    maxPromptLength,
  };
}

/** Something about one key that only shows beside the others. */
export interface Remark {
  readonly key: keyof RecipeInput;
  readonly message: string;
}

/** Rules between keys; each remark makes the recipe unusable. */
export function crossCheck(config: Config): Remark[] {
  const remarks: Remark[] = [
    ...checkLossOptions(config),
    ...checkSchedule(config),
    ...checkTrainOptions(config),
  ];
  if (cutsPrompts(config) && config.maxPromptLength >= config.maxLength) {
    remarks.push({
      key: "maxPromptLength",
      message:
        `expected less than max_length (${config.maxLength}), received ${config.maxPromptLength}: ` +
        "a pair cut to that would have no response token left to score",
    });
  }
  if (config.doEval && !config.datasetSplits.some((split) => split.includes("test"))) {
    remarks.push({
      key: "datasetSplits",
      message:
        `evaluation needs a split whose name contains "test", received ` +
        `[${config.datasetSplits.join(", ")}]; add one or set do_eval: false` +
        (config.evalStrategy === "no" ? "" : ' and eval_strategy: "no"'),
    });
  }
  if (!config.datasetSplits.some((split) => split.includes("train"))) {
    remarks.push({
      key: "datasetSplits",
      message:
        `training needs a split whose name contains "train", received ` +
        `[${config.datasetSplits.join(", ")}]`,
    });
  }
  return remarks;
}

const dataReasons = {
  preprocessingNumWorkers: "rows are prepared in one process as they are read",
  truncationSide: "truncation_mode decides, as in the reference pipeline",
} as const satisfies Record<(typeof dataKeysWithoutEffect)[number], string>;

/** What the user should know about lengths that the recipe leaves open; the reference warns too. */
export function lengthNotices(config: Config, given: ReadonlySet<string>): string[] {
  if (!given.has("maxLength") && roomNeeded(config)) {
    return [
      `max_length is not in the recipe and is ${config.maxLength}, twice max_prompt_length: the default, ` +
        `${DEFAULT_MAX_LENGTH}, would leave no room for a response`,
    ];
  }
  const open = (["maxLength", "maxPromptLength"] as const)
    .filter((name) => !given.has(name) && (name === "maxLength" || cutsPrompts(config)))
    .map((name) => `${toRecipeKey(name)}: ${config[name]}`);
  return open.length > 0 ? [`not in the recipe, so the default is used: ${open.join(", ")}`] : [];
}

/** Keys that tell of another loss than SimPER where no loss_type is given: they get a notice of their own. */
const ofOtherLosses = ["beta", "gammaBetaRatio"] as const;

/** What a recipe for another loss would otherwise be trained with unawares: DPO's have names and keys of SimPO's. */
export function lossNotices(config: Config, given: ReadonlySet<string>): string[] {
  const { lossType, gammaBetaRatio } = config;
  if ((lossType === "sigmoid" || lossType === "hinge") && !given.has("gammaBetaRatio")) {
    return [
      `loss_type: ${lossType} is SimPO's loss, with gamma_beta_ratio ${gammaBetaRatio} (the default); ` +
        "DPO's of that name needs a reference model and is not supported",
    ];
  }
  const unread = ofOtherLosses.filter((name) => given.has(name)).map(toRecipeKey);
  if (given.has("lossType") || unread.length === 0) return [];
  const theirs = given.has("gammaBetaRatio")
    ? "SimPO's is loss_type: sigmoid"
    : "DPO, which has one, needs a reference model and is not supported";
  return [
    `loss_type is not given, so SimPER is trained, which has no ${unread.join(" and no ")}; ${theirs}`,
  ];
}

/** Keys that were given and are set aside, and why. */
export function keysWithoutEffect(
  config: Config,
  parsed: Parsed,
  given: ReadonlySet<string>,
): { key: string; reason: string }[] {
  const found: { key: string; reason: string }[] = [];
  const told: readonly string[] = given.has("lossType") ? [] : ofOtherLosses;
  for (const name of lossKeysWithoutEffect[config.lossType]) {
    if (!given.has(name) || told.includes(name)) continue;
    found.push({ key: toRecipeKey(name), reason: `${config.lossType} does not use it` });
  }
  for (const name of dataKeysWithoutEffect.filter((key) => (config[key] ?? null) !== null)) {
    found.push({ key: toRecipeKey(name), reason: dataReasons[name] });
  }
  if (given.has("maxPromptLength") && config.dataSemantics === "corrected") {
    const reason =
      "data_semantics corrected cuts a prompt only as far as its longer response needs";
    found.push({ key: "max_prompt_length", reason });
  }
  if (config.torchDtype === "bfloat16" || config.torchDtype === "float16") {
    found.push({ key: "torch_dtype", reason: "weights are read as stored; bf16 decides the rest" });
  }
  if (config.warmupSteps > 0 && config.warmupRatio > 0) {
    found.push({ key: "warmup_ratio", reason: `warmup_steps is ${config.warmupSteps} and wins` });
  }
  if (parsed.doEval === false && config.doEval) {
    const reason = `eval_strategy is ${config.evalStrategy} and wins, as in transformers`;
    found.push({ key: "do_eval", reason });
  }
  if (given.has("evalSteps") && config.evalStrategy !== "steps") {
    const why = config.doEval ? `eval_strategy is ${config.evalStrategy}` : "do_eval is false";
    found.push({ key: "eval_steps", reason: why });
  }
  for (const name of ["generatePrompts", "generateMaxNewTokens"] as const) {
    if (!given.has(name) || config.generateDuringEval) continue;
    found.push({ key: toRecipeKey(name), reason: "generate_during_eval is false" });
  }
  const rule = config.metricForBestModel !== null;
  if (rule && !config.doEval) {
    found.push({ key: "metric_for_best_model", reason: "do_eval is false" });
  }
  if (config.greaterIsBetter !== null && !(rule && config.doEval) && !config.loadBestModelAtEnd) {
    found.push({ key: "greater_is_better", reason: "there is no metric to compare by" });
  }
  for (const name of reportersWithoutEffect(config.reportTo)) {
    const reason = "metrics.jsonl has all metrics; besides it tensorboard and wandb are written";
    found.push({ key: `report_to: ${name}`, reason });
  }
  if (given.has("saveSteps") && config.saveStrategy !== "steps") {
    found.push({ key: "save_steps", reason: `save_strategy is ${config.saveStrategy}` });
  }
  return found;
}
