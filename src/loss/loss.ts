import type { Stream, Tensor } from "../native/index.js";
import type { LossOptions } from "./schema.js";

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
  /** Numbers that the loss depends on, by name. Kept in checkpoints, too: a run goes on with the same ones. */
  readonly options?: Readonly<Record<string, number>>;
  /**
   * Weight of the SFT term that `reduce` adds by means of its `tokenWeights`; absent or 0: it adds none. The
   * term is the mean of −logp over the chosen tokens of a loss group, then the mean over the groups of the
   * step; a group is `per_device_train_batch_size` consecutive pairs in data order, whatever the packing.
   */
  readonly sftWeight?: number;
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
   * @param tokenWeights (R) f32: what each token's −logp weighs in the SFT term, {@link Loss.sftWeight} times
   *   1 / (groups of the step · chosen tokens of the group) for a chosen response, else 0
   */
  reduce(
    s: Stream,
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    scale: number,
    tokenWeights: Tensor,
  ): void | Promise<void>;
}

/** A loss of the recipe: what it trains on, and how its options make it. */
export interface LossKind {
  /** As {@link Loss.examples}: data are loaded by it. */
  readonly examples: Loss["examples"];
  /** The loss, with the options of a recipe. */
  create(options: LossOptions): Loss;
}

/** What checkpoints keep of an SFT term, where there is one. */
export function sftOption(sftWeight: number): Readonly<Record<string, number>> {
  return sftWeight > 0 ? { sft_weight: sftWeight } : {};
}
