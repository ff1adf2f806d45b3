import path from "node:path";
import { writeFileAtomic } from "../checkpoint/files.js";
import { type ConfigFile, readConfigFile } from "../checkpoint/model-directory.js";
import type { Config } from "../config/schema.js";
import { ConfigError, MemoryError } from "../errors.js";
import { createLoss, type Loss } from "../loss/index.js";
import { readModelShape } from "../model/index.js";
import { type DeviceName, freeDeviceMemory, requireDevice } from "../native/index.js";
import { soloGroup } from "../parallel/group.js";
import {
  combineReporters,
  createTrainerState,
  type EvalRecord,
  type Reporter,
  type RunSummary,
  recipeReporters,
  type StepRecord,
  unloggedSteps,
} from "../report/index.js";
import { type BestRule, bestBefore, bestRule, describeRule } from "./best-model.js";
import { keptPlan, rankSettings } from "./elastic.js";
import { describeEnvironment } from "./environment.js";
import { requireTestRows } from "./evaluate.js";
import { loadExamples } from "./examples.js";
import { wholeSteps } from "./milestones.js";
import { loadWeights, resolveModelDir, resolveTokenizerDir } from "./model-source.js";
import { lockOutputDir, prepareOutputDir } from "./output-dir.js";
import { largestLines, modelBlocks, planRun, type RunPlan } from "./plan.js";
import { checkProfileRequest, type ProfileRequest, Profiler, profileRange } from "./profiler.js";
import { ResidentModel } from "./resident-model.js";
import { evaluationMetrics, trainMetrics, writeResults } from "./results.js";
import { checkAgreement, findCheckpoint, restoreCheckpoint } from "./run-checkpoint.js";
import { cutSamples, readSampleTools, Samples } from "./samples.js";
import { Session } from "./session.js";
import { TrainingRun } from "./training-run.js";
import { writeModelCard } from "./write-model-card.js";

/** What a training run is given. */
export interface TrainOptions {
  /** A recipe with every default filled in: `loadRecipe(file).config`. */
  readonly config: Config;
  /** Folder that relative paths are looked up in, after the current one. */
  readonly baseDir?: string;
  /** Default: the best device present. */
  readonly device?: DeviceName;
  /** Compute threads; default: the cores this process may use. */
  readonly threads?: number;
  /** Told of every step, evaluation and notice. */
  readonly reporters?: readonly Reporter[];
  /** Called with the record of every optimizer step. What it throws ends the run. */
  readonly onStep?: (record: StepRecord) => void;
  /** Called with the record of every evaluation. What it throws ends the run. */
  readonly onEval?: (record: EvalRecord) => void;
  /**
   * Measures where the time of these optimizer steps goes, by op: given to the reporters' `profile` and written
   * to `profile.json` in output_dir. True: all steps after the first.
   */
  readonly profile?: ProfileRequest;
  /** When aborted, the run finishes the current step, saves a checkpoint and returns. */
  readonly signal?: AbortSignal;
  /** Trains with this loss; the recipe's `loss_type` then only says what the data are: pairs, or text for `sft`. */
  readonly loss?: Loss;
}

/**
 * Trains a model as the recipe says and writes it to `output_dir`.
 *
 * @throws SimperError of the kind that fits; what was saved before stays as it is.
 * @example
 * const { config, baseDir } = loadRecipe("configs/quickstart.yaml");
 * await train({ config, baseDir, reporters: [createConsoleReporter()] });
 */
export async function train(options: TrainOptions): Promise<RunSummary> {
  const { config, baseDir = ".", device = "auto" } = options;
  requireDevice(device); // before minutes of tokenizing
  bestRule(config, chooseLoss(options.loss, config));
  if (options.profile) checkProfileRequest(options.profile);
  const modelDir = resolveModelDir(config.modelNameOrPath, baseDir);
  const tokenizerDir = resolveTokenizerDir(config, baseDir);
  const source = { ...(await readConfigFile(modelDir)), tokenizerDir };
  const lock = await lockOutputDir(config.outputDir);
  try {
    return await trainLocked(options, modelDir, source);
  } finally {
    lock.release();
  }
}

async function trainLocked(
  options: TrainOptions,
  modelDir: string,
  source: ConfigFile & { readonly tokenizerDir: string },
): Promise<RunSummary> {
  const { config, baseDir = ".", device = "auto", threads, signal } = options;
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
  const kept = keptPlan(checkpoint, config, 1);
  const memory = { device: freeDeviceMemory(device) };
  const plan = planRun(config, shape, data.train, data.test, memory, kept);
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
    ...rankSettings(config, 1),
    ...(best && { bestBy: describeRule(best) }),
  } as const;
  if (checkpoint) checkAgreement(checkpoint, settings);
  const resumedStep = checkpoint?.state.step ?? 0;
  const profiled = options.profile && profileRange(options.profile, resumedStep, plan.totalSteps);
  const moved = await prepareOutputDir(config.outputDir, checkpoint?.state.step ?? -1);

  const modelOptions = {
    device,
    ...(threads ? { threads } : {}),
    shape,
    blocks: modelBlocks(shape),
    dtype: config.bf16 ? "bf16" : "f32",
    training: true,
  } as const;
  const model = allocate(plan, () => new ResidentModel(modelOptions));
  let session: Session | undefined;
  let samples: Samples | undefined;
  try {
    const { limits } = plan;
    const checkpointing = config.gradientCheckpointing;
    const own = allocate(plan, () => new Session(model, { limits, checkpointing }));
    session = own;
    samples = tools && allocate(plan, () => new Samples(own, tools, config, data.test, plan));
    if (checkpoint) await restoreCheckpoint(model, checkpoint.dir);
    else await loadWeights(model, modelDir);
    const from = checkpoint?.state ?? { step: 0, evaluatedStep: -1 };
    const trainerState = createTrainerState(checkpoint?.trainerState, bestSoFar);
    const callbacks = {
      start: ignore,
      step: options.onStep ?? ignore,
      eval: options.onEval ?? ignore,
      notice: ignore,
      end: ignore,
    };
    const tell = (text: string) => reporter.notice(text);
    const asked = recipeReporters(config, tell, { ...config });
    const reporters = [...(options.reporters ?? []), ...asked.reporters];
    const reporter = combineReporters([...reporters, trainerState, callbacks]);
    cutSamples(config.outputDir, from.evaluatedStep);
    reporter.start({
      runName: config.runName,
      outputDir: config.outputDir,
      totalSteps: plan.totalSteps,
      resumedStep: from.step,
      evaluatedStep: from.evaluatedStep,
      numTrainEpochs: config.numTrainEpochs,
      loggingSteps: wholeSteps(config.loggingSteps, plan.totalSteps),
      evalSteps: wholeSteps(config.evalSteps, plan.totalSteps),
      saveSteps: wholeSteps(config.saveSteps, plan.totalSteps),
      unloggedSteps: unloggedSteps(checkpoint?.trainerState),
      perDeviceTrainBatchSize: config.perDeviceTrainBatchSize,
      // Two for each weight forward, four backward; embeddings are looked up. [Kaplan et al. 2020]
      flosPerToken: 6 * (plan.parameters - shape.vocabSize * shape.hiddenSize),
    });
    for (const notice of [...kept.notices, ...data.notices, ...moved, ...asked.notices])
      reporter.notice(notice);

    const stopped = () => signal?.aborted === true;
    const parts = {
      config,
      source: { ...source, chatTemplate: data.chatTemplate },
      data,
      plan,
      shape,
      loss,
      settings,
      best,
      session,
      world: undefined,
      group: soloGroup(),
      samples,
      reporter,
      trainerState,
      stopped,
      profiler: profiled && new Profiler(session.stream, profiled),
    };
    const started = performance.now();
    const { step, epoch, examples, interrupted, resultStep } = await new TrainingRun(
      parts,
      from,
    ).run();
    const seconds = (performance.now() - started) / 1e3;
    if (interrupted) {
      const summary = { step, interrupted, seconds };
      reporter.end(summary);
      return summary;
    }
    const train = trainMetrics({
      epoch,
      totalFlos: trainerState.totalFlos(),
      trainLoss: trainerState.trainLoss(),
      samples: data.train.count,
      done: { steps: step - from.step, examples },
      seconds,
    });
    const evaluation = evaluationMetrics(trainerState.evaluation(resultStep), data.test.count);
    const summary = { step, interrupted, seconds, train, ...(evaluation && { eval: evaluation }) };
    const card = await writeModelCard(config, modelDir, data, {
      loss: loss.name,
      train,
      eval: evaluation,
      history: trainerState.history(),
      weights: describeWeights(resultStep, step, best),
      environment: describeEnvironment(model.device, { threads, bf16: config.bf16 }),
    });
    if (card !== undefined) reporter.notice(card);
    reporter.end(summary);
    const file = path.join(config.outputDir, "trainer_state.json");
    await writeFileAtomic(file, trainerState.toJson());
    await writeResults(config.outputDir, train, evaluation);
    return summary;
  } finally {
    samples?.dispose();
    session?.dispose();
    model.dispose();
  }
}

/** Which weights a run ended with, for its model card. */
function describeWeights(step: number, last: number, best: BestRule | undefined): string {
  if (step === last) return `those after the last of ${last} optimizer steps`;
  return `those after step ${step} of ${last}, the best by ${best ? describeRule(best) : "evaluation"}`;
}

/** Memory that was free when the plan was made may be gone: the error then says what it was wanted for. */
function allocate<T>(plan: RunPlan, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof MemoryError)) throw error;
    const message = `${error.message}; largest of the plan: ${largestLines(plan.lines)}`;
    throw new MemoryError(message, { hint: "try a smaller max_tokens_per_micro_batch" });
  }
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

function ignore(): void {}
