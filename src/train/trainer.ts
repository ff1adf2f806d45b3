import path from "node:path";
import { writeFileAtomic } from "../checkpoint/files.js";
import type { FolderLock } from "../checkpoint/lock.js";
import type { Config } from "../config/schema.js";
import { MemoryError } from "../errors.js";
import type { Loss } from "../loss/index.js";
import {
  type Device,
  type DeviceName,
  deviceCount,
  freeDeviceMemory,
  openDevice,
} from "../native/index.js";
import { type ProcessGroup, soloGroup } from "../parallel/group.js";
import { type Ranks, ranksFromEnvironment } from "../parallel/ranks.js";
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
import { agreeOnRun, agreeToStart } from "./agreement.js";
import { type BestRule, describeRule } from "./best-model.js";
import { shareOfCores } from "./cores.js";
import { describeEnvironment } from "./environment.js";
import { wholeSteps } from "./milestones.js";
import { loadWeights } from "./model-source.js";
import { lockOutputDir, prepareOutputDir, requireSharedOutput } from "./output-dir.js";
import { largestLines, modelBlocks, type RunPlan } from "./plan.js";
import {
  checkRequest,
  factsOf,
  type PreparedRun,
  prepareRun,
  readSource,
  withTokens,
} from "./prepare-run.js";
import { type ProfileRequest, Profiler, profileRange } from "./profiler.js";
import { ResidentModel } from "./resident-model.js";
import { evaluationMetrics, trainMetrics, writeResults } from "./results.js";
import { restoreCheckpoint } from "./run-checkpoint.js";
import { cutSamples, Samples } from "./samples.js";
import { Session } from "./session.js";
import { TrainingRun } from "./training-run.js";
import { closeWorld, failWorld, letOthersTell, openWorld, type World } from "./world.js";
import { writeModelCard } from "./write-model-card.js";

/** What a training run is given. */
export interface TrainOptions {
  /** A recipe with every default filled in: `loadRecipe(file).config`. */
  readonly config: Config;
  /** Folder that relative paths are looked up in, after the current one. */
  readonly baseDir?: string;
  /** Default: the best device present. */
  readonly device?: DeviceName;
  /** Compute threads; default: the cores this process may use, shared with the ranks that may use them, too. */
  readonly threads?: number;
  /** Told of every step, evaluation and notice; of several processes that share the run those of rank 0 alone. */
  readonly reporters?: readonly Reporter[];
  /** Called with the record of every optimizer step, in every process. What it throws ends the run. */
  readonly onStep?: (record: StepRecord) => void;
  /** Called with the record of every evaluation, in every process. What it throws ends the run. */
  readonly onEval?: (record: EvalRecord) => void;
  /**
   * Measures where the time of these optimizer steps goes, by op: given to the reporters' `profile` and written
   * to `profile.json` in output_dir; rank 0's, of several processes. True: all steps after the first.
   */
  readonly profile?: ProfileRequest;
  /**
   * When aborted, the run finishes the current step, saves a checkpoint and returns. Several processes do so when
   * one of them is asked to, up to two steps later.
   */
  readonly signal?: AbortSignal;
  /** Trains with this loss; the recipe's `loss_type` then only says what the data are: pairs, or text for `sft`. */
  readonly loss?: Loss;
}

/**
 * Trains a model as the recipe says and writes it to `output_dir`. Where a launcher has started this process as one
 * of several, all of them call it alike and share the run; rank 0 alone reports and keeps `output_dir`.
 *
 * @throws SimperError of the kind that fits; what was saved before stays as it is.
 * @example
 * const { config, baseDir } = loadRecipe("configs/quickstart.yaml");
 * await train({ config, baseDir, reporters: [createConsoleReporter()] });
 */
export async function train(options: TrainOptions): Promise<RunSummary> {
  const ranks = ranksFromEnvironment(process.env);
  const locks: FolderLock[] = [];
  const prepare = async (): Promise<PreparedRun> => {
    checkRequest(options);
    const source = await readSource(options);
    if (ranks.rank === 0) locks.push(await lockOutputDir(options.config.outputDir));
    const { size, localSize } = ranks;
    return prepareRun(options, source, { size, localSize });
  };
  try {
    return await (ranks.size === 1 ? trainAlone : trainTogether)(options, prepare, ranks);
  } finally {
    for (const lock of locks) lock.release();
  }
}

type Prepare = () => Promise<PreparedRun>;

async function trainAlone(
  options: TrainOptions,
  prepare: Prepare,
  ranks: Ranks,
): Promise<RunSummary> {
  const run = await prepare();
  const device = openDeviceOf(options, ranks);
  try {
    return await trainPrepared(run, options, device, undefined);
  } finally {
    device.dispose();
  }
}

/** Meets the other ranks before anything else: one that dies or hangs in its preparation is missed, too. */
async function trainTogether(
  options: TrainOptions,
  prepare: Prepare,
  ranks: Ranks,
): Promise<RunSummary> {
  const device = openDeviceOf(options, ranks);
  try {
    const world = (await openWorld(ranks, device, options.config))!;
    return await trainIn(world, options, prepare, device);
  } finally {
    device.dispose();
  }
}

function openDeviceOf({ device = "auto", threads }: TrainOptions, { localRank }: Ranks): Device {
  // A scheduler may show each rank its own GPU alone, and ranks may share one where NCCL lets them.
  const index = localRank % deviceCount(device);
  return openDevice(device, { ...(threads && { threads }), index });
}

/** Trains with the other ranks: all end well, or all end with an error that says whose it was. */
async function trainIn(
  world: World,
  options: TrainOptions,
  prepare: Prepare,
  device: Device,
): Promise<RunSummary> {
  const { group } = world;
  let run: PreparedRun;
  try {
    run = await prepareTogether(group, prepare);
  } catch (error) {
    if (group.failure.aborted) throw await failWorld(world, error);
    await closeWorld(world); // all ranks have learnt the same, so they part in good order
    await letOthersTell(error);
    throw error;
  }
  try {
    const tokens = await group.gather("tokens of a micro-batch", run.plan.limits.tokens);
    const memory = { device: freeDeviceMemory(options.device ?? "auto") };
    const agreed = withTokens(run, Math.min(...tokens), memory);
    const threads = options.threads ?? (await shareOfCores(group));
    device.limitThreads(threads);
    const summary = await trainPrepared(agreed, { ...options, threads }, device, world);
    await group.barrier("end of the run");
    return summary;
  } catch (error) {
    throw await failWorld(world, error);
  } finally {
    await closeWorld(world);
  }
}

/** Every rank prepares the same run. @throws what one of them has met, on all */
async function prepareTogether(group: ProcessGroup, prepare: Prepare): Promise<PreparedRun> {
  group.doing("preparation");
  let run: PreparedRun | undefined;
  let trouble: unknown;
  try {
    run = await prepare();
  } catch (error) {
    trouble = error;
  }
  await agreeToStart(group, trouble);
  await agreeOnRun(group, factsOf(run!));
  return run!;
}

/** Trains, evaluates and writes the results: everything on this process's device, together with the others'. */
async function trainPrepared(
  run: PreparedRun,
  options: TrainOptions,
  device: Device,
  world: World | undefined,
): Promise<RunSummary> {
  const { config, loss, shape, modelDir, source, data, tools, plan, settings } = run;
  const { checkpoint, best, bestSoFar } = run;
  const { threads, signal } = options;
  const group = world?.group ?? soloGroup();
  const leads = group.rank === 0;
  const resumedStep = checkpoint?.state.step ?? 0;
  const profiled = options.profile && profileRange(options.profile, resumedStep, plan.totalSteps);
  await requireSharedOutput(group, config.outputDir);
  const moved = leads ? await prepareOutputDir(config.outputDir, checkpoint?.state.step ?? -1) : [];
  await group.barrier("output_dir");

  const modelOptions = {
    device,
    shape,
    blocks: modelBlocks(shape),
    dtype: config.bf16 ? "bf16" : "f32",
    training: true,
    fabric: world,
    stage: config.zeroStage,
    offload: config.offloadOptimizer === "cpu",
    ...(threads && { threads }),
  } as const;
  const model = allocate(plan, () => new ResidentModel(modelOptions));
  let session: Session | undefined;
  let samples: Samples | undefined;
  let loop: TrainingRun | undefined;
  try {
    const { limits } = plan;
    const checkpointing = config.gradientCheckpointing;
    const own = allocate(plan, () => new Session(model, { limits, checkpointing }));
    session = own;
    samples = tools && allocate(plan, () => new Samples(own, tools, config, data.test, plan));
    if (checkpoint) await restoreCheckpoint(model, checkpoint.dir, group);
    else await loadWeights(model, modelDir, group);
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
    const asked = leads
      ? recipeReporters(config, tell, { ...config })
      : { reporters: [], notices: [] };
    const reporters = leads ? [...(options.reporters ?? []), ...asked.reporters] : [];
    const reporter = combineReporters([...reporters, trainerState, callbacks]);
    if (leads) cutSamples(config.outputDir, from.evaluatedStep);
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
    const notices = [...run.notices, ...data.notices, ...moved, ...asked.notices];
    for (const notice of notices) reporter.notice(notice);

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
      world,
      group,
      samples,
      reporter,
      trainerState,
      stopped: () => signal?.aborted === true,
      profiler: profiled && leads ? new Profiler(session.stream, profiled) : undefined,
    };
    const started = performance.now();
    loop = new TrainingRun(parts, from);
    const { step, epoch, examples, interrupted, resultStep } = await loop.run();
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
    if (leads) {
      const card = await writeModelCard(config, modelDir, data, {
        loss: loss.name,
        train,
        eval: evaluation,
        history: trainerState.history(),
        weights: describeWeights(resultStep, step, best),
        environment: describeEnvironment(model.device, { threads, bf16: config.bf16 }),
      });
      if (card !== undefined) reporter.notice(card);
    }
    reporter.end(summary);
    if (leads) {
      const file = path.join(config.outputDir, "trainer_state.json");
      await writeFileAtomic(file, trainerState.toJson());
      await writeResults(config.outputDir, train, evaluation);
    }
    return summary;
  } finally {
    loop?.dispose();
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

function ignore(): void {}
