import { mkdir, rename } from "node:fs/promises";
import path from "node:path";
import { cleanTemporary, writeFileAtomic } from "../checkpoint/files.js";
import { readConfigFile } from "../checkpoint/model-directory.js";
import type { Config } from "../config/schema.js";
import { createOrder, stepPosition } from "../data/order.js";
import { CheckpointError, NumericsError } from "../errors.js";
import { losses } from "../loss/index.js";
import { readModelShape } from "../model/index.js";
import { type DeviceName, requireDevice } from "../native/index.js";
import { AdamW } from "../optim/adamw.js";
import { learningRate } from "../optim/schedule.js";
import {
  combineReporters,
  createTrainerState,
  type Reporter,
  type RunSummary,
} from "../report/index.js";
import { evaluate } from "./evaluate.js";
import { loadExamples } from "./examples.js";
import { loadModel, resolveModelDir } from "./model-source.js";
import { modelBlocks, planRun, scheduleOptions } from "./plan.js";
import { removeOldCheckpoints } from "./retention.js";
import {
  type Checkpoint,
  checkAgreement,
  findCheckpoint,
  listCheckpoints,
  type RunState,
  restoreCheckpoint,
  saveCheckpoint,
  saveModel,
} from "./run-checkpoint.js";
import { Session } from "./session.js";
import { StepMeter } from "./step-meter.js";

export interface TrainOptions {
  /** A recipe with every default filled in: `loadRecipe(file).config`. */
  readonly config: Config;
  /** Folder that relative data paths are looked up in, after the current one. */
  readonly baseDir?: string;
  readonly device?: DeviceName;
  /** Compute threads; default: the cores this process may use. */
  readonly threads?: number;
  /** Told of every step, evaluation and notice. */
  readonly reporters?: readonly Reporter[];
  /** When aborted, the run finishes the current step, saves a checkpoint and returns. */
  readonly signal?: AbortSignal;
}

/** Trains a model as the recipe says and writes it to `output_dir`. */
export async function train(options: TrainOptions): Promise<RunSummary> {
  const { config, baseDir = ".", signal } = options;
  requireDevice(options.device ?? "auto"); // before minutes of tokenizing
  const stopped = () => signal?.aborted === true;
  const loss = losses[config.lossType];
  const modelDir = resolveModelDir(config.modelNameOrPath, baseDir);
  const source = await readConfigFile(modelDir);
  const shape = readModelShape(source);
  const checkpoint = await findCheckpoint(config);
  const data = await loadExamples(config, shape.vocabSize, {
    modelDir,
    baseDir,
    needTest: config.doEval,
  });
  const plan = planRun(
    config,
    shape,
    data.train,
    data.test,
    undefined,
    checkpoint?.state.maxTokens,
  );
  const { totalSteps, examplesPerStep, limits } = plan;
  const run: Omit<RunState, "step" | "evaluatedStep"> = {
    format: 1,
    seed: config.seed,
    shuffle: config.shuffle,
    examples: data.train.count,
    examplesPerStep,
    lossType: config.lossType,
    bf16: config.bf16,
    prefixSharing: config.prefixSharing,
    maxTokens: limits.tokens,
    totalSteps,
  };
  if (checkpoint) checkAgreement(checkpoint, run);
  const first = checkpoint?.state.step ?? 0;
  const notices = [...data.notices, ...(await prepareOutput(config, checkpoint))];

  const session = new Session({
    device: options.device ?? "auto",
    ...(options.threads ? { threads: options.threads } : {}),
    shape,
    blocks: modelBlocks(shape),
    dtype: config.bf16 ? "bf16" : "f32",
    limits,
    training: true,
    checkpointing: config.gradientCheckpointing,
  });
  try {
    if (checkpoint) await restoreCheckpoint(session, checkpoint.dir);
    else await loadModel(session, modelDir, shape.tiedEmbeddings);
    const { stream, pass, buffers, store } = session;
    const optimizer = new AdamW(
      store.blocks,
      config,
      buffers.tensor("clip"),
      buffers.tensor("normPartials"),
    );
    const trainerState = createTrainerState(checkpoint?.trainerState);
    const reporter = combineReporters([...(options.reporters ?? []), trainerState]);
    reporter.start({
      runName: config.runName,
      outputDir: config.outputDir,
      totalSteps,
      resumedStep: first,
      numTrainEpochs: config.numTrainEpochs,
      loggingSteps: config.loggingSteps,
      evalSteps: config.evalSteps,
      saveSteps: config.saveSteps,
      perDeviceTrainBatchSize: config.perDeviceTrainBatchSize,
    });
    for (const notice of notices) reporter.notice(notice);

    const started = performance.now();
    const walk = { count: data.train.count, perStep: examplesPerStep };
    const order = createOrder({ ...walk, shuffle: config.shuffle, seed: config.seed });
    const schedule = scheduleOptions(config, totalSteps);
    const meter = new StepMeter(session, optimizer.clip, loss.examples === "pairs");
    const epochsAfter = (step: number) =>
      step === 0 ? 0 : stepPosition(walk, step - 1).epochsDone;
    const endsEpoch = (step: number) => Number.isInteger(epochsAfter(step));
    let evaluated = checkpoint?.state.evaluatedStep ?? -1;
    const runEvaluation = async (step: number) => {
      if (data.test.count === 0 || evaluated === step) return;
      const round = { maxTokens: limits.tokens, round: limits.stepExamples, stopped };
      const at = { step, epoch: epochsAfter(step) };
      const record = await evaluate(session, data.test, loss, round, at);
      if (!record) return;
      evaluated = step;
      reporter.eval(record);
    };
    const runSave = async (step: number) => {
      const state = { ...run, step, evaluatedStep: evaluated };
      const dir = await saveCheckpoint(session, state, trainerState.toJson(), source, config);
      await removeOldCheckpoints(config.outputDir, config.saveTotalLimit, dir);
    };
    const report = (record: Awaited<ReturnType<StepMeter["next"]>>) => {
      if (!record) return;
      if (!Number.isFinite(record.loss) || !Number.isFinite(record.grad_norm)) {
        throw new NumericsError(
          `step ${record.step}: loss ${record.loss}, gradient norm ${record.grad_norm}: expected finite numbers`,
          {
            hint: "lower learning_rate, or look for NaN in the model's weights; the last checkpoint is intact",
          },
        );
      }
      reporter.step(record);
    };

    const due = (strategy: string, every: number, step: number) =>
      strategy === "steps" ? step % every === 0 : strategy === "epoch" && endsEpoch(step);
    const evaluationDue = (step: number) => {
      if (step === 0) return config.evalOnStart;
      const last = step === totalSteps && config.doEval;
      return last || due(config.evalStrategy, config.evalSteps, step);
    };

    // A run that was stopped in the middle of an evaluation makes up for it when it is resumed.
    if (evaluationDue(first)) await runEvaluation(first);
    let step = first;
    while (step < totalSteps && !stopped()) {
      const members = order(step);
      step++;
      let scoredTokens = 0;
      if (loss.examples === "sequences")
        for (const i of members) scoredTokens += data.train.scoredTokens[i]!;
      const scale = loss.scale({ examples: members.length, scoredTokens });
      const rate = learningRate(schedule, step);
      meter.begin({ step, epoch: epochsAfter(step), learning_rate: rate }, members.length);
      for (const block of store.blocks) stream.fill(block.grad, 0);
      let responses = 0;
      for (const batch of data.train.pack(members, limits.tokens)) {
        pass.train(batch, { loss, scale }, responses);
        responses += batch.responses.length / 3;
        meter.count(batch);
      }
      optimizer.step(stream, step, rate);
      meter.end(responses);
      report(await meter.next()); // of the step before: this one is queued and runs on

      const evaluateNow = evaluationDue(step);
      const saveNow = due(config.saveStrategy, config.saveSteps, step);
      if (evaluateNow || saveNow) report(await meter.flush());
      if (evaluateNow) await runEvaluation(step);
      if (saveNow && !stopped()) await runSave(step);
    }
    report(await meter.flush());

    const evaluationMissing = evaluationDue(step) && evaluated !== step && data.test.count > 0;
    const interrupted = step < totalSteps || evaluationMissing;
    if (!interrupted) await saveModel(session, config.outputDir, source, config);
    else if (step > first) await runSave(step);
    const summary = { step, interrupted, seconds: (performance.now() - started) / 1e3 };
    reporter.end(summary);
    if (!interrupted) {
      await writeFileAtomic(
        path.join(config.outputDir, "trainer_state.json"),
        trainerState.toJson(),
      );
    }
    return summary;
  } finally {
    session.dispose();
  }
}

/**
 * Makes output_dir ready. Checkpoints beyond the step that the run starts from belong to an earlier run and
 * are moved aside, so that a later resume never mixes the two. Returns notices.
 */
async function prepareOutput(
  config: Config,
  checkpoint: Checkpoint | undefined,
): Promise<string[]> {
  const { outputDir } = config;
  try {
    await mkdir(outputDir, { recursive: true });
    await cleanTemporary(outputDir);
    const from = checkpoint?.state.step ?? -1;
    const earlier = (await listCheckpoints(outputDir)).filter(({ step }) => step > from);
    if (earlier.length === 0) return [];
    const aside = path.join(outputDir, `previous-${Date.now()}`);
    await mkdir(aside);
    for (const { dir } of earlier) await rename(dir, path.join(aside, path.basename(dir)));
    return [
      `${earlier.length} checkpoints of an earlier run were moved to ${aside}; ` +
        "they stand beyond the step that this run starts from",
    ];
  } catch (cause) {
    throw new CheckpointError(`output_dir ${outputDir}: ${(cause as Error).message}`, {
      hint: "choose a folder that can be written to",
      cause,
    });
  }
}
