import type { Stream, Tensor } from "../native/index.js";
import type { StepRecord } from "../report/records.js";
import { responseMetrics } from "./metrics.js";
import type { StepResult } from "./step-results.js";

/** What is known of a step when it is enqueued. */
type StepFacts = Pick<
  StepRecord,
  "step" | "epoch" | "learning_rate" | "num_tokens" | "num_computed_tokens"
>;

/** What a step's record averages over, all ranks together. */
export interface StepMakeUp {
  readonly examples: number;
  /** Whether they are pairs. */
  readonly pairs: boolean;
  /** What {@link responseMetrics} takes as shares. */
  readonly shares: readonly number[] | undefined;
}

/** A step that has run. */
export interface MeasuredStep {
  readonly record: StepRecord;
  readonly stop: boolean;
}

/**
 * Measures steps without waiting for them: the record of a step is read while the next one runs, so that the
 * stream never drains.
 */
export class StepMeter {
  readonly #stream: Stream;
  readonly #clip: Tensor;
  #waiting: Promise<MeasuredStep> | undefined;
  /** When the stream finished the step before, in ms. */
  #lastDone = 0;

  constructor(stream: Stream, clip: Tensor) {
    this.#stream = stream;
    this.#clip = clip;
  }

  /**
   * Enqueues the readback of the step's norm; that of its results has been enqueued.
   *
   * @param begun when its first op was enqueued, in ms
   */
  end(
    facts: StepFacts,
    results: Promise<StepResult>,
    { examples, pairs, shares }: StepMakeUp,
    begun: number,
  ): void {
    const norm = this.#stream.read(this.#clip) as Promise<Float32Array>;
    const measured = Promise.all([results, norm]).then(([result, clip]): MeasuredStep => {
      const done = performance.now();
      const seconds = (done - Math.max(this.#lastDone, begun)) / 1e3;
      this.#lastDone = done;
      const metrics = responseMetrics(result.means, result.losses, pairs, shares);
      const record = {
        step: facts.step,
        epoch: facts.epoch,
        loss: metrics.loss,
        grad_norm: clip[0]!,
        learning_rate: facts.learning_rate,
        ...metrics.pairs,
        num_tokens: facts.num_tokens,
        num_computed_tokens: facts.num_computed_tokens,
        step_time: seconds,
        tokens_per_second: facts.num_tokens / seconds,
        pairs_per_second: examples / seconds,
      };
      return { record, stop: result.stop };
    });
    measured.catch(() => {}); // rejections are seen where the step is awaited
    this.#waiting = measured;
  }

  /** The last step whose end is enqueued, once it has run; undefined when it was taken already. */
  take(): Promise<MeasuredStep | undefined> {
    const measured = this.#waiting;
    this.#waiting = undefined;
    return measured ?? Promise.resolve(undefined);
  }
}
