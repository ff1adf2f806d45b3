import type { ConfigFile } from "../checkpoint/model-directory.js";
import type { Config } from "../config/schema.js";
import { createOrder } from "../data/order.js";
import { NumericsError } from "../errors.js";
import type { Loss } from "../loss/index.js";
import { AdamW } from "../optim/adamw.js";
import { learningRate, type ScheduleOptions } from "../optim/schedule.js";
import type { Reporter, StepRecord, TrainerState } from "../report/index.js";
import { evaluate } from "./evaluate.js";
import type { RunData } from "./examples.js";
import { createMilestones, type Milestones } from "./milestones.js";
import { removeOldCheckpoints } from "./output-dir.js";
import { type RunPlan, scheduleOptions } from "./plan.js";
import { type RunState, saveCheckpoint, saveModel } from "./run-checkpoint.js";
import type { Session } from "./session.js";
import { StepMeter } from "./step-meter.js";

/** Everything a run needs, loaded and allocated. */
export interface TrainingParts {
  readonly config: Config;
  /** The model's config.json. */
  readonly source: ConfigFile;
  readonly data: RunData;
  readonly plan: RunPlan;
  readonly loss: Loss;
  /** Settings that go into every checkpoint. */
  readonly settings: Omit<RunState, "step" | "evaluatedStep">;
  readonly session: Session;
  readonly reporter: Reporter;
  readonly trainerState: TrainerState;
  /** Asked between steps; true ends the run early. */
  readonly stopped: () => boolean;
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
  #step: number;
  #evaluatedStep: number;

  /** @param from the step that the run goes on from, and the step last evaluated (-1: none). */
  constructor(parts: TrainingParts, from: Pick<RunState, "step" | "evaluatedStep">) {
    const { config, data, plan, session } = parts;
    const { buffers, store } = session;
    this.#parts = parts;
    this.#step = from.step;
    this.#evaluatedStep = from.evaluatedStep;
    this.#loss = parts.loss;
    this.#optimizer = new AdamW(
      store.blocks,
      config,
      buffers.tensor("clip"),
      buffers.tensor("normPartials"),
    );
    const { totalSteps, examplesPerStep: perStep } = plan;
    const { count } = data.train;
    this.#schedule = scheduleOptions(config, totalSteps);
    this.#order = createOrder({ count, perStep, shuffle: config.shuffle, seed: config.seed });
    this.#milestones = createMilestones(config, { count, perStep, totalSteps });
    this.#meter = new StepMeter(session, this.#optimizer.clip, this.#loss.examples === "pairs");
  }

  /** Trains to the last step, or until stopped; then writes the model, or a checkpoint to go on from. */
  async run(): Promise<{ step: number; interrupted: boolean }> {
    const { config, plan, session, source, stopped } = this.#parts;
    const first = this.#step;
    // A run that was stopped in the middle of an evaluation makes up for it when it is resumed.
    await this.#evaluateIfDue();
    while (this.#step < plan.totalSteps && !stopped()) {
      await this.#enqueueStep();
      this.#report(await this.#meter.next()); // of the step before: this one is queued and runs on
      await this.#evaluateIfDue();
      if (this.#milestones.saveDue(this.#step) && !stopped()) await this.#save();
    }
    this.#report(await this.#meter.flush());

    const interrupted = this.#step < plan.totalSteps || this.#evaluationMissing();
    if (!interrupted) await saveModel(session, config.outputDir, source, config);
    else if (this.#step > first) await this.#save();
    return { step: this.#step, interrupted };
  }

  /** One optimizer step: gradients of its micro-batches, clip, update. Waits only where the loss does. */
  async #enqueueStep(): Promise<void> {
    const { data, plan, session } = this.#parts;
    const { stream, store, pass } = session;
    const members = this.#order(this.#step);
    this.#step++;
    const scoredTokens = members.reduce((sum, i) => sum + data.train.scoredTokens[i]!, 0);
    const scale = this.#loss.scale({ examples: members.length, scoredTokens });
    const rate = learningRate(this.#schedule, this.#step);
    const epoch = this.#milestones.epochsAfter(this.#step);
    this.#meter.begin({ step: this.#step, epoch, learning_rate: rate }, members.length);
    for (const block of store.blocks) stream.fill(block.grad, 0);
    let responses = 0;
    for (const batch of data.train.pack(members, plan.limits.tokens)) {
      await pass.train(batch, { loss: this.#loss, scale }, responses);
      responses += batch.responses.length / 3;
      this.#meter.count(batch);
    }
    this.#optimizer.step(stream, this.#step, rate);
    this.#meter.end(responses);
  }

  /** Passes a step's record on. @throws NumericsError when its loss or gradient is not finite. */
  #report(record: StepRecord | undefined): void {
    if (!record) return;
    const { step, loss, grad_norm } = record;
    if (!Number.isFinite(loss) || !Number.isFinite(grad_norm)) {
      throw new NumericsError(
        `step ${step}: loss ${loss}, gradient norm ${grad_norm}: expected finite numbers`,
        {
          hint: "lower learning_rate, or look for NaN in the model's weights; the last checkpoint is intact",
        },
      );
    }
    this.#parts.reporter.step(record);
  }

  #evaluationMissing(): boolean {
    const { data } = this.#parts;
    const due = this.#milestones.evaluationDue(this.#step) && data.test.count > 0;
    return due && this.#evaluatedStep !== this.#step;
  }

  async #evaluateIfDue(): Promise<void> {
    if (!this.#evaluationMissing()) return;
    this.#report(await this.#meter.flush());
    const { data, plan, session, reporter, stopped } = this.#parts;
    const round = { maxTokens: plan.limits.tokens, round: plan.limits.stepExamples, stopped };
    const at = { step: this.#step, epoch: this.#milestones.epochsAfter(this.#step) };
    const record = await evaluate(session, data.test, this.#loss, round, at);
    if (!record) return; // stopped half-way
    this.#evaluatedStep = this.#step;
    reporter.eval(record);
  }

  async #save(): Promise<void> {
    this.#report(await this.#meter.flush());
    const { config, session, settings, source, trainerState } = this.#parts;
    const state = { ...settings, step: this.#step, evaluatedStep: this.#evaluatedStep };
    const dir = await saveCheckpoint(session, state, trainerState.toJson(), source, config);
    await removeOldCheckpoints(config.outputDir, config.saveTotalLimit, dir);
  }
}
