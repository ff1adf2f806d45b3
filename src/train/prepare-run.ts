import { type ConfigFile, readConfigFile } from "../checkpoint/model-directory.js";
import { toRecipeKey } from "../config/names.js";
import type { Config } from "../config/schema.js";
import { ConfigError } from "../errors.js";
import { createLoss, type Loss } from "../loss/index.js";
import { type ModelShape, readModelShape } from "../model/index.js";
import { type DeviceName, freeDeviceMemory, requireDevice } from "../native/index.js";
import type { Best } from "../report/index.js";
import type { RunFacts } from "./agreement.js";
import { type BestRule, bestBefore, bestRule, describeRule } from "./best-model.js";
import { keptPlan, rankSettings } from "./elastic.js";
import { packageVersion } from "./environment.js";
import { requireTestRows } from "./evaluate.js";
import { type ExampleSet, loadExamples, type RunData } from "./examples.js";
import { resolveModelDir, resolveTokenizerDir } from "./model-source.js";
import { type PlanOptions, planRun, type RankCounts, type RunPlan } from "./plan.js";
import type { AvailableMemory } from "./plan-memory.js";
import { checkProfileRequest, type ProfileRequest } from "./profiler.js";
import {
  type Checkpoint,
  checkAgreement,
  findCheckpoint,
  type RunState,
} from "./run-checkpoint.js";
import { readSampleTools, type SampleTools } from "./samples.js";

/** What a run is before its memory is taken. */
export interface PreparedRun {
  readonly config: Config;
  readonly loss: Loss;
  readonly shape: ModelShape;
  /** The model's folder, and its config.json. */
  readonly modelDir: string;
  readonly source: ConfigFile & { readonly tokenizerDir: string };
  readonly data: RunData;
  /** Where the recipe asks for answers at evaluations. */
  readonly tools: SampleTools | undefined;
  /** What the run goes on from, and how the best evaluation is chosen, with the best so far. */
  readonly checkpoint: Checkpoint | undefined;
  readonly best: BestRule | undefined;
  readonly bestSoFar: Best | undefined;
  readonly plan: RunPlan;
  /** What the user is told of it. */
  readonly notices: readonly string[];
  /** What goes into every checkpoint. */
  readonly settings: Omit<RunState, "step" | "evaluatedStep">;
}

/** What {@link prepareRun} is given. */
export interface PrepareOptions {
  readonly config: Config;
  readonly baseDir?: string;
  readonly device?: DeviceName;
  readonly profile?: ProfileRequest;
  readonly loss?: Loss;
}

/** Says no before minutes of tokenizing. @throws SimperError */
export function checkRequest({ config, device = "auto", profile, loss }: PrepareOptions): void {
  requireDevice(device);
  bestRule(config, chooseLoss(loss, config));
  if (profile) checkProfileRequest(profile);
}

/** Where a run's model is and what it says of itself. @throws CheckpointError */
export async function readSource({ config, baseDir = "." }: PrepareOptions) {
  const modelDir = resolveModelDir(config.modelNameOrPath, baseDir);
  const tokenizerDir = resolveTokenizerDir(config, baseDir);
  return { modelDir, source: { ...(await readConfigFile(modelDir)), tokenizerDir } };
}

/**
 * Reads the data, the model's shape and the checkpoint to go on from, and plans the run. Every rank does it for
 * itself, and comes to the same.
 *
 * @throws SimperError of the kind that fits.
 */
export async function prepareRun(
  options: PrepareOptions,
  { modelDir, source }: Awaited<ReturnType<typeof readSource>>,
  ranks: RankCounts,
): Promise<PreparedRun> {
  const { config, baseDir = ".", device = "auto" } = options;
  const loss = chooseLoss(options.loss, config);
  const shape = readModelShape(source);
  const checkpoint = await findCheckpoint(config);
  const best = bestRule(config, loss);
  const bestSoFar = checkpoint && best && bestBefore(checkpoint, config.loadBestModelAtEnd);
  const dataOptions = { modelDir: source.tokenizerDir, baseDir, needTest: config.doEval };
  const data = await loadExamples(config, shape.vocabSize, dataOptions);
  requireTestRows(config, data.test.count);
  const tools = config.generateDuringEval
    ? await readSampleTools(modelDir, dataOptions.modelDir, source.fields)
    : undefined;
  const memory = { device: freeDeviceMemory(device) };
  const found = { config, loss, shape, modelDir, source, data, tools, checkpoint, best, bestSoFar };
  const { notices, ...kept } = keptPlan(checkpoint, config, ranks.size);
  const run = planned({ ...found, notices }, memory, { ...kept, ranks });
  if (checkpoint) checkAgreement(checkpoint, run.settings);
  return run;
}

/**
 * The run with at most `tokens` in a micro-batch: ranks whose memory differs have planned different ones, and all
 * take the smallest.
 *
 * @throws MemoryError
 */
export function withTokens(run: PreparedRun, tokens: number, memory: AvailableMemory): PreparedRun {
  const { limits, ranks, examplesPerStep } = run.plan;
  return tokens === limits.tokens ? run : planned(run, memory, { ranks, examplesPerStep, tokens });
}

function planned(
  run: Omit<PreparedRun, "plan" | "settings">,
  memory: AvailableMemory,
  options: PlanOptions,
): PreparedRun {
  const { config, shape, data, loss, best } = run;
  const plan = planRun(config, shape, data.train, data.test, memory, options);
  const settings = {
    format: 1,
    seed: config.seed,
    shuffle: config.shuffle,
    poolOrder: config.shuffle ? "numpy-42" : "files",
    dataSemantics: config.dataSemantics,
    examples: data.train.count,
    examplesPerStep: plan.examplesPerStep,
    lossType: loss.name,
    lossOptions: lossOptions(loss, config),
    bf16: config.bf16,
    prefixSharing: config.prefixSharing,
    maxTokens: plan.limits.tokens,
    totalSteps: plan.totalSteps,
    ...rankSettings(config, plan.ranks.size),
    ...(best && { bestBy: describeRule(best) }),
  } as const;
  return { ...run, plan, settings };
}

/** What the ranks have to have alike. */
export function factsOf({ config, data, plan, source, checkpoint, loss }: PreparedRun): RunFacts {
  const recipe = Object.entries(config).map(([key, value]) => [toRecipeKey(key), value]);
  const { limits, examplesPerStep, totalSteps, warmupSteps } = plan;
  const examples = (set: ExampleSet) => `${set.count} examples, ${set.digest()}`;
  return {
    "simper-native": packageVersion().version,
    ...Object.fromEntries(recipe),
    loss: loss.name,
    "config.json of the model": source.fields,
    "training examples": examples(data.train),
    "test examples": examples(data.test),
    "checkpoint to go on from": checkpoint?.state ?? null,
    "micro-batches": { ...limits, examplesPerStep, totalSteps, warmupSteps },
  };
}

/** Data are loaded and memory is planned by the recipe's loss_type, so a given loss has to fit it. */
function chooseLoss(given: Loss | undefined, config: Config): Loss {
  const named = createLoss(config);
  if (given === undefined) return named;
  if (config.sftWeight > 0 && given.sftWeight !== config.sftWeight) {
    throw new ConfigError(
      `sft_weight is ${config.sftWeight}, and loss "${given.name}" has an SFT term of weight ${given.sftWeight ?? 0}`,
      { hint: "leave sft_weight out of the recipe; a loss of your own adds such a term itself" },
    );
  }
  if (given.examples === named.examples) return given;
  const lossType = given.examples === "pairs" ? "SimPER" : "sft";
  throw new ConfigError(
    `loss "${given.name}" trains on ${given.examples}, and loss_type ${config.lossType} prepares ${named.examples}`,
    { hint: `set loss_type: ${lossType} in the recipe that goes with this loss` },
  );
}

/** What a resumed run must agree on besides the loss's name. Loss groups matter to an SFT term only. */
function lossOptions(loss: Loss, config: Config): Readonly<Record<string, number>> {
  if (!loss.sftWeight) return loss.options ?? {};
  const { perDeviceTrainBatchSize } = config;
  return { ...loss.options, per_device_train_batch_size: perDeviceTrainBatchSize };
}
