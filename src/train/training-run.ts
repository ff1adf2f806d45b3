import { existsSync } from "node:fs";
import path from "node:path";
import { writeFileAtomic } from "../checkpoint/files.js";
import type { ConfigFile } from "../checkpoint/model-directory.js";
import type { Config } from "../config/schema.js";
import { createOrder } from "../data/order.js";
import { CheckpointError, NumericsError } from "../errors.js";
import type { Loss } from "../loss/index.js";
import type { ModelShape } from "../model/index.js";
import { AdamW } from "../optim/adamw.js";
import { learningRate, type ScheduleOptions } from "../optim/schedule.js";
import type { ProcessGroup } from "../parallel/group.js";
import type { Reporter, TrainerState } from "../report/index.js";
import { type BestRule, describeRule, isBetter } from "./best-model.js";
import { evaluate } from "./evaluate.js";
import type { RunData } from "./examples.js";
import { type StepLoss, sftShares, stepLoss } from "./loss-groups.js";
import { createMilestones, type Milestones } from "./milestones.js";
import { firstNonFinite } from "./nonfinite.js";
import { removeOldCheckpoints } from "./output-dir.js";
import { type RunPlan, scheduleOptions } from "./plan.js";
import type { Profiler } from "./profiler.js";
import type { RankBatches } from "./rank-batches.js";
import {
  checkpointDir,
  type RunState,
  restoreWeights,
  saveCheckpoint,
  saveModel,
} from "./run-checkpoint.js";
import type { Samples } from "./samples.js";
import type { Session } from "./session.js";
import { StepMeter } from "./step-meter.js";
import { StepResults } from "./step-results.js";
import type { World } from "./world.js";

/** Everything a run needs, loaded and allocated. */
export interface TrainingParts {
  readonly config: Config;
  /** The model's config.json. */
  readonly source: ConfigFile;
  readonly data: RunData;
  readonly plan: RunPlan;
  readonly shape: ModelShape;
  readonly loss: Loss;
  /** Settings that go into every checkpoint. */
  readonly settings: Omit<RunState, "step" | "evaluatedStep">;
  /** How the best evaluation is chosen. */
  readonly best: BestRule | undefined;
  readonly session: Session;
  /** The ranks that share the run; undefined: it is one process. */
  readonly world: World | undefined;
  /** This rank, or the group of one process. */
  readonly group: ProcessGroup;
  /** Answers to prompts of the test split, where the recipe asks for them. */
  readonly samples: Samples | undefined;
  readonly reporter: Reporter;
  readonly trainerState: TrainerState;
  /** Where the run is to be profiled. */
  readonly profiler: Profiler | undefined;
  /** Whether this process has been asked to end the run early. */
  readonly stopped: () => boolean;
}

/** Where a run ended. */
export interface RunOutcome {
  readonly step: number;
  readonly epoch: number;
  /** Examples trained on since the start or the resume, over all ranks. */
  readonly examples: number;
  /** Stopped before its last step was done and evaluated. */
  readonly interrupted: boolean;
  /** The step whose weights output_dir has; -1: none yet, the run was stopped. */
  readonly resultStep: number;
}

/** What an optimizer step trains on. */
interface StepWork {
  readonly packed: RankBatches;
  /** What its loss weighs its terms with. */
  readonly terms: StepLoss;
  /** Of each chosen response in the SFT term, where there is one. */
  readonly shares: readonly number[] | undefined;
  /** Of all ranks. */
  readonly realTokens: number;
  readonly computedTokens: number;
}

/** The training loop, from one step to the last, with what happens between steps. */
export class TrainingRun {
  readonly #parts: TrainingParts;
  readonly #loss: Loss;
  readonly #optimizer: AdamW;
  readonly #schedule: ScheduleOptions;
  readonly #order: (step: number) => Int32Array;
  readonly #milestones: Milestones;
  readonly #meter: StepMeter;
  readonly #results: StepResults;
  #step: number;
  #evaluatedStep: number;
  #savedStep: number;
  #examples = 0;
  #profileReported = false;

  /** @param from the step that the run goes on from, and the step last evaluated (-1: none). */
  constructor(parts: TrainingParts, from: Pick<RunState, "step" | "evaluatedStep">) {
    const { config, data, plan, session } = parts;
    const { buffers, store } = session;
    this.#parts = parts;
    this.#step = from.step;
    this.#evaluatedStep = from.evaluatedStep;
    this.#savedStep = from.step;
    this.#loss = parts.loss;
    this.#optimizer = new AdamW(
      store.blocks,
      config,
      buffers.tensor("clip"),
      buffers.tensor("normPartials"),
      store,
    );
    const { totalSteps, examplesPerStep: perStep } = plan;
    const { count } = data.train;
    this.#schedule = scheduleOptions(config, totalSteps);
    this.#order = createOrder({ count, perStep, shuffle: config.shuffle, seed: config.seed });
    this.#milestones = createMilestones(config, { count, perStep, totalSteps });
    this.#meter = new StepMeter(session.stream, this.#optimizer.clip);
    this.#results = new StepResults(session, parts.world, parts.stopped);
  }

  /** Frees what the loop owns besides its parts. */
  dispose(): void {
    this.#results.dispose();
  }

  /** Trains to the last step, or until stopped; then writes the model, or a checkpoint to go on from. */
  async run(): Promise<RunOutcome> {
    const { plan } = this.#parts;
    const first = this.#step;
    const stopped = () => this.#results.stopped();
    await this.#results.ask();
    // A run that was stopped in the middle of an evaluation makes up for it when it is resumed.
    if ((await this.#evaluateIfDue()) && this.#mayBeBest()) await this.#save();
    while (this.#step < plan.totalSteps && !stopped()) {
      await this.#profiledStep();
      await this.#evaluateIfDue();
      if (this.#milestones.saveDue(this.#step) && !stopped()) await this.#save();
    }
    await this.#reportLast();
    await this.#reportProfile();

    const interrupted = this.#step < plan.totalSteps || this.#evaluationMissing();
    const unsaved = this.#savedStep !== this.#step;
    if (interrupted ? this.#step > first : unsaved && this.#mayBeBest()) await this.#save();
    const resultStep = interrupted ? -1 : await this.#saveResult();
    const epoch = this.#milestones.epochsAfter(this.#step);
    return { step: this.#step, epoch, examples: this.#examples, interrupted, resultStep };
  }

  /** Writes the model to output_dir: the last weights, or those of the best evaluation. Returns their step. */
  async #saveResult(): Promise<number> {
    const { config, session, source, reporter, trainerState, group, best: rule } = this.#parts;
    const save = () => saveModel(session.model, config.outputDir, source, config, group);
    group.doing("the final model");
    const best = trainerState.best;
    if (!config.loadBestModelAtEnd || rule === undefined || best === undefined) {
      await save();
      if (rule && config.loadBestModelAtEnd) {
        reporter.notice(
          `no checkpoint has an evaluation where ${rule.metric} is a number; output_dir holds the last weights`,
        );
      }
      return this.#step;
    }
    const name = path.basename(best.checkpoint);
    const step = Number(name.replace("checkpoint-", ""));
    if (step !== this.#step) {
      // Folders may come into sight at different times on different machines: one rank decides.
      const there = await group.broadcast("best checkpoint", existsSync(best.checkpoint));
      if (!there) {
        await save();
        throw new CheckpointError(
          `${best.checkpoint}: the best checkpoint, by ${rule.metric} ${best.metric}, is gone`,
          { hint: "output_dir holds the last weights instead" },
        );
      }
      await restoreWeights(session.model, best.checkpoint, group);
    }
    await save();
    const which =
      step === this.#step ? "the last weights" : `the weights of ${name}, not the last ones`;
    reporter.notice(
      `output_dir holds ${which}: the best by ${describeRule(rule)} (${best.metric})`,
    );
    return step;
  }

  async #profiledStep(): Promise<void> {
    const { profiler } = this.#parts;
    if (profiler === undefined) return this.#enqueueStep();
    await profiler.before(this.#step + 1);
    await this.#enqueueStep();
    if (!profiler.after(this.#step)) return;
    await profiler.rest();
    await this.#reportLast();
    await this.#reportProfile();
  }

  /**
   * One optimizer step: gradients of its micro-batches, clip, update. The step before is reported while the
   * gradients are computed, so that the stream never drains; where that step failed, nothing has changed the
   * weights since.
   */
  async #enqueueStep(): Promise<void> {
    const { session } = this.#parts;
    const { stream, store, pass } = session;
    const work = this.#work(this.#step);
    const { batches, firstResponse, members, responses } = work.packed;
    this.#step++;
    const rate = learningRate(this.#schedule, this.#step);
    const facts = {
      step: this.#step,
      epoch: this.#milestones.epochsAfter(this.#step),
      learning_rate: rate,
      num_tokens: work.realTokens,
      num_computed_tokens: work.computedTokens,
    };
    const began = performance.now();
    this.#parts.group.doing(`step ${this.#step}`);
    stream.pushRange(`step ${this.#step}`);
    store.beginStep();
    this.#results.begin(responses);
    for (const [slot, batch] of batches.entries()) {
      store.beginPass(slot === batches.length - 1);
      await pass.train(batch, work.terms, firstResponse[slot]!);
    }
    this.#results.share(responses);
    await this.#reportLast();
    stream.pushRange("optimizer");
    await this.#optimizer.step(stream, this.#step, rate);
    stream.popRange();
    stream.popRange();
    this.#examples += members.length;
    const makeUp = {
      examples: members.length,
      pairs: this.#loss.examples === "pairs",
      shares: work.shares,
    };
    this.#meter.end(facts, this.#results.read(), makeUp, began);
  }

  /** The micro-batches of a step (from 0) and what its loss weighs them with. */
  #work(step: number): StepWork {
    const { config, data, plan, group } = this.#parts;
    const { train } = data;
    const examples = this.#order(step);
    const counts = {
      scoredTokens: examples.map((i) => train.scoredTokens[i]!),
      chosenTokens: examples.map((i) => train.chosenTokens[i]!),
    };
    const terms = stepLoss(this.#loss, counts, config.perDeviceTrainBatchSize);
    const packed = train.pack(examples, plan.limits.tokens, group);
    const { weights } = terms;
    return {
      packed,
      terms,
      shares: weights && sftShares(packed.members, counts.chosenTokens, weights),
      realTokens: examples.reduce((sum, i) => sum + train.realTokens[i]!, 0),
      computedTokens: examples.reduce((sum, i) => sum + train.computedTokens[i]!, 0),
    };
  }

  /**
   * Passes on the record of the last step whose update is enqueued.
   * @throws NumericsError when its loss or gradient is not finite and the recipe does not say to skip it.
   */
  async #reportLast(): Promise<void> {
    const measured = await this.#meter.take();
    if (!measured) return;
    this.#results.accept(measured);
    const { record } = measured;
    const { config, reporter } = this.#parts;
    const { step, loss, grad_norm } = record;
    if (Number.isFinite(loss) && Number.isFinite(grad_norm)) return reporter.step(record);
    const what = `step ${step}: loss ${loss}, gradient norm ${grad_norm}: expected finite numbers`;
    // A finite norm beside a loss that is none: the update was made, so there is nothing to skip.
    if (config.onNonfinite === "stop" || Number.isFinite(grad_norm))
      throw await this.#failure(step, what);
    reporter.notice(`${what}; the step is skipped, the weights stay as they are`);
    reporter.step({ ...record, skipped: true });
  }

  /** The error of a step that failed, naming the op that was the first to write a value that is not finite. */
  async #failure(step: number, what: string): Promise<NumericsError> {
    const { session, shape, group } = this.#parts;
    await session.stream.done();
    const { packed, terms } = this.#work(step - 1);
    const first = await firstNonFinite(session, shape, group, packed.batches, terms);
    const why = first
      ? `first in ${first}`
      : "every value of its passes is finite, but the square of a gradient or a sum of losses is not";
    return new NumericsError(`${what}; ${why}`, {
      hint: "lower learning_rate, or look for NaN in the model's weights; the last checkpoint is intact. on_nonfinite: skip leaves such steps out",
    });
  }

  /** Writes and passes on the profile, once: at the end of its steps, or of a run that was stopped in them. */
  async #reportProfile(): Promise<void> {
    const { config, profiler, reporter } = this.#parts;
    if (profiler === undefined || this.#profileReported) return;
    this.#profileReported = true;
    await profiler.rest();
    const record = profiler.record();
    if (record === undefined) return reporter.notice("no profile: the run ended before its steps");
    const file = path.join(config.outputDir, "profile.json");
    await writeFileAtomic(file, `${JSON.stringify(record, null, 2)}\n`);
    reporter.profile?.(record);
  }

  #evaluationMissing(): boolean {
    const { data } = this.#parts;
    const due = this.#milestones.evaluationDue(this.#step) && data.test.count > 0;
    return due && this.#evaluatedStep !== this.#step;
  }

  /** Whether the checkpoint after this step takes part in the choice of the best. */
  #mayBeBest(): boolean {
    const evaluated = this.#evaluatedStep === this.#step;
    return this.#parts.best !== undefined && evaluated && this.#milestones.saveDue(this.#step);
  }

  /** Returns whether the test split was evaluated. */
  async #evaluateIfDue(): Promise<boolean> {
    if (!this.#evaluationMissing()) return false;
    await this.#parts.profiler?.rest();
    await this.#reportLast();
    const { config, data, plan, session, samples, reporter, group } = this.#parts;
    const { tokens: maxTokens, stepExamples: round } = plan.limits;
    const options = { maxTokens, round, groupSize: config.perDeviceEvalBatchSize };
    const at = { step: this.#step, epoch: this.#milestones.epochsAfter(this.#step) };
    const results = this.#results;
    group.doing(`evaluation at step ${this.#step}`);
    const found = await evaluate(session, results, group, data.test, this.#loss, options, at);
    if (!found) return false; // stopped half-way
    const writes = group.rank === 0;
    if (samples && !(await samples.write(this.#step, results, writes))) return false;
    this.#evaluatedStep = this.#step;
    if (found.nonFinite) {
      // No update depends on it, so the run goes on whatever on_nonfinite says.
      const { count, first } = found.nonFinite;
      reporter.notice(
        `evaluation at step ${this.#step}: ${count} of ${data.test.count} examples have a loss that is not finite, first ${first}; ` +
          "look there, and for NaN in the model's weights",
      );
    }
    reporter.eval(found.record);
    return true;
  }

  async #save(): Promise<void> {
    await this.#parts.profiler?.rest();
    await this.#reportLast();
    const { best: rule, config, session, settings, source, trainerState, group } = this.#parts;
    const checkpoint = checkpointDir(config.outputDir, this.#step);
    if (rule && this.#mayBeBest()) {
      const metric = trainerState.evaluation(this.#step)?.[rule.metric];
      if (isBetter(rule, metric, trainerState.best)) trainerState.best = { metric, checkpoint };
    }
    const state = { ...settings, step: this.#step, evaluatedStep: this.#evaluatedStep };
    group.doing(path.basename(checkpoint));
    await saveCheckpoint(session.model, state, trainerState.toJson(), source, config, group);
    this.#savedStep = this.#step;
    if (group.rank > 0) return;
    const keep = [checkpoint, ...(trainerState.best ? [trainerState.best.checkpoint] : [])];
    await removeOldCheckpoints(config.outputDir, config.saveTotalLimit, keep);
  }
}
