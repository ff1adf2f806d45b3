import type { PackedBatch } from "../data/types.js";
import type { Loss } from "../loss/index.js";

/** What a micro-batch adds to its step: its loss and the weight of its terms. */
export interface StepLoss {
  readonly loss: Loss;
  readonly scale: number;
  /** (examples of the step) what {@link groupWeights} gives, where the loss has an SFT term. */
  readonly weights?: Float64Array;
}

/** Counts that the terms of some examples are weighed by. */
export interface TermCounts {
  /** (E) scored tokens of each example. */
  readonly scoredTokens: ArrayLike<number>;
  /** (E) those of its chosen response. */
  readonly chosenTokens: ArrayLike<number>;
}

/**
 * What the terms of E examples in data order weigh in their loss: of an optimizer step, or of a whole split.
 *
 * @param groupSize pairs of a loss group: the recipe's batch size per device
 */
export function stepLoss(loss: Loss, counts: TermCounts, groupSize: number): StepLoss {
  const { scoredTokens, chosenTokens } = counts;
  const total = Array.from(scoredTokens).reduce((sum, n) => sum + n, 0);
  const scale = loss.scale({ examples: scoredTokens.length, scoredTokens: total });
  if (!loss.sftWeight) return { loss, scale };
  return { loss, scale, weights: groupWeights(chosenTokens, groupSize) };
}

/**
 * Weight of each example's chosen tokens in a mean over the tokens of a group, then over groups: 1 / (groups ·
 * chosen tokens of its group). A group is `groupSize` consecutive examples; the last one holds what remains.
 */
export function groupWeights(chosenTokens: ArrayLike<number>, groupSize: number): Float64Array {
  const weights = new Float64Array(chosenTokens.length);
  const groups = Math.ceil(weights.length / groupSize);
  for (let begin = 0; begin < weights.length; begin += groupSize) {
    const end = Math.min(begin + groupSize, weights.length);
    let tokens = 0;
    for (let i = begin; i < end; i++) tokens += chosenTokens[i]!;
    weights.fill(1 / (groups * tokens), begin, end);
  }
  return weights;
}

/** (R) weight of each token's −logp in the SFT term, by response: 0 for the rejected ones. */
export function tokenWeights(
  { members }: Pick<PackedBatch, "members">,
  weights: Float64Array,
  sftWeight: number,
): Float32Array {
  const result = new Float32Array(2 * members.length);
  members.forEach((member, e) => {
    result[2 * e] = sftWeight * weights[member]!;
  });
  return result;
}

/**
 * (E) share of each chosen response's −mean in the SFT term, in the order of the results.
 *
 * @param members examples of the step in that order
 * @param chosenTokens (E) scored tokens of the chosen responses, in data order like `weights`
 */
export function sftShares(
  members: readonly number[],
  chosenTokens: ArrayLike<number>,
  weights: Float64Array,
): number[] {
  return members.map((member) => chosenTokens[member]! * weights[member]!);
}
