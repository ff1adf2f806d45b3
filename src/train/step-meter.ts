import type { PackedBatch } from "../data/types.js";
import type { Tensor } from "../native/index.js";
import type { StepRecord } from "../report/records.js";
import { type StepLoss, sftShares } from "./loss-groups.js";
import { responseMetrics } from "./metrics.js";
import type { Session } from "./session.js";

/** What is known of a step when it is enqueued. */
type StepFacts = Pick<StepRecord, "step" | "epoch" | "learning_rate">;

/**
 * Measures steps without waiting for them: the record of a step is read while the next one runs, so that the
 * stream never drains.
 */
export class StepMeter {
  readonly #session: Session;
  readonly #clip: Tensor;
  #waiting: Promise<StepRecord> | undefined;
  /** When the stream finished the step before, in ms. */
  #lastDone = 0;

  constructor(session: Session, clip: Tensor) {
    this.#session = session;
    this.#clip = clip;
  }

  /**
   * Enqueues the step's only readback.
   * @param begun when its first op was enqueued, in ms
   */
  end(
    facts: StepFacts,
    batches: readonly PackedBatch[],
    { loss, weights }: StepLoss,
    responses: number,
    begun: number,
  ): void {
    const real = batches.reduce((sum, batch) => sum + batch.realTokens, 0);
    const examples = batches.reduce((sum, batch) => sum + batch.examples, 0);
    const shares = weights && sftShares(batches, weights);
    const computed = batches.reduce((sum, batch) => sum + batch.tokens.length, 0);
    const results = this.#session.readResponses(responses);
    const norm = this.#session.stream.read(this.#clip) as Promise<Float32Array>;
    const record = Promise.all([results, norm]).then(([{ means, losses }, clip]): StepRecord => {
      const done = performance.now();
      const seconds = (done - Math.max(this.#lastDone, begun)) / 1e3;
      this.#lastDone = done;
      const metrics = responseMetrics(means, losses, loss.examples === "pairs", shares);
      return {
        step: facts.step,
        epoch: facts.epoch,
        loss: metrics.loss,
        grad_norm: clip[0]!,
        learning_rate: facts.learning_rate,
        ...metrics.pairs,
        num_tokens: real,
        num_computed_tokens: computed,
        step_time: seconds,
        tokens_per_second: real / seconds,
        pairs_per_second: examples / seconds,
      };
    });
    record.catch(() => {}); // rejections are seen where the record is awaited
    this.#waiting = record;
  }

  /** The record of the last step whose end is enqueued, once it has run; undefined when it was taken already. */
  take(): Promise<StepRecord | undefined> {
    const record = this.#waiting;
    this.#waiting = undefined;
    return record ?? Promise.resolve(undefined);
  }
}
