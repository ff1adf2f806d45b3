import type { Stream, Tensor } from "../native/index.js";

/**
 * A training loss, as far as it differs from the others: it sees log-probabilities of the scored tokens and
 * says what they are worth and in which direction each should move. Write one with ops of the device
 * (`reduce` enqueues and returns), or in JavaScript with {@link hostPairLoss} or {@link hostSequenceLoss}.
 */
export interface Loss {
  /** Kept in checkpoints: a run goes on with the loss it was begun with. */
  readonly name: string;
  /** What an example is: a pair of responses, or one sequence. */
  readonly examples: "pairs" | "sequences";
  /** True when `reduce` needs both responses of a pair at once; they are then never parted. */
  readonly wholePairs?: boolean;
  /** Weight of one example's (or token's) term, so that the terms of an optimizer step sum to its loss. */
  scale(step: { readonly examples: number; readonly scoredTokens: number }): number;
  /**
   * The reduction over some responses of a micro-batch: fills `mean` and `loss`, and the coefficients in
   * the ranges of these responses. Where it returns a promise, the backward pass is enqueued once that
   * resolves; arguments stay as they are until then.
   *
   * @param s stream to enqueue on
   * @param mean (R) f32: mean of logp over each response, for metrics
   * @param loss (R) f32: terms that sum to the loss of the optimizer step
   * @param coefficient (N) f32: d loss / d logp
   * @param logp (N) f32: log-probability of each scored token
   * @param responses (R, 3) i32: `{begin, end, side}`, ranges in logp; side 0 is chosen, 1 rejected
   * @param scale what {@link Loss.scale} returned
   */
  reduce(
    s: Stream,
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    scale: number,
  ): void | Promise<void>;
}
