import type { Stream, Tensor } from "../native/index.js";

/** A training loss, as far as it differs from the others. */
export interface Loss {
  /** What an example is: a pair of responses, or one sequence. */
  readonly examples: "pairs" | "sequences";
  /** Weight of one example's (or token's) term, so that the terms of an optimizer step sum to its loss. */
  scale(step: { readonly examples: number; readonly scoredTokens: number }): number;
  /**
   * Enqueues the reduction over responses: mean, loss (R) f32 and coefficient (N) = d loss / d logp from
   * logp (N) f32 and responses (R, 3) i32 {begin, end, side}.
   */
  reduce(
    s: Stream,
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    scale: number,
  ): void;
}
