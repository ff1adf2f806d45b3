import type { PackOptions } from "../data/pack.js";
import { packRanks } from "../data/pack-ranks.js";
import type { PackedBatch } from "../data/types.js";

/** One of the processes that share a run. */
export interface RankPlace {
  readonly rank: number;
  readonly size: number;
}

export const ONE_RANK: RankPlace = { rank: 0, size: 1 };

/** The micro-batches of one rank in a step, and where their results stand among those of all ranks. */
export interface RankBatches {
  /** One for each slot of the step; every rank has as many. Those without examples compute nothing. */
  readonly batches: readonly PackedBatch[];
  /** Row of the first response of each batch in the means and losses of the step. */
  readonly firstResponse: readonly number[];
  /** The step's examples, over all ranks, in the order of their results. */
  readonly members: readonly number[];
  /** Rows of means and losses that the step has, over all ranks. */
  readonly responses: number;
}

/**
 * Packs the examples of a step, or of a round of an evaluation, for all ranks and builds the micro-batches of one.
 * Results stand slot by slot and in a slot rank by rank, so that one rank has them in the order of its batches.
 *
 * @param lengths tokens that are computed for each example
 * @param options.responses rows of an example: 2 for a pair
 * @param build makes a micro-batch of examples, which may be none
 * @throws DataError when an example alone exceeds `maxTokens`.
 */
export function rankBatches(
  lengths: ArrayLike<number>,
  options: Pick<PackOptions, "maxTokens" | "where"> & {
    readonly place: RankPlace;
    readonly responses: number;
  },
  build: (members: readonly number[]) => PackedBatch,
): RankBatches {
  const { place, responses } = options;
  const planned = packRanks(lengths, { ...options, ranks: place.size });
  const members: number[] = [];
  const firstResponse: number[] = [];
  for (let slot = 0; slot < planned[0]!.length; slot++) {
    for (const [rank, slots] of planned.entries()) {
      if (rank === place.rank) firstResponse.push(responses * members.length);
      members.push(...slots[slot]!);
    }
  }
  return {
    batches: planned[place.rank]!.map(build),
    firstResponse,
    members,
    responses: responses * members.length,
  };
}
