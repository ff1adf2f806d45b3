import { type PackOptions, packLengths } from "./pack.js";

/**
 * Plans the micro-batches of R ranks from lengths alone, so that every rank knows those of all without a word
 * being exchanged: `result[rank][slot]` names the examples of that rank's micro-batch. Every rank has the same
 * number of slots, as the collectives of a step want it; where examples are few, some are empty.
 *
 * There are no more slots than one rank's batches need, ⌈B/R⌉ of the B batches of {@link packLengths}. Examples
 * are dealt longest first to the least loaded bin [Graham 1969], so that the ranks compute about as many tokens;
 * where `maxTokens` is too tight for that, the batches stay as they are. The bins go to slots by falling load,
 * to and fro over the ranks, as ranks may wait for each other after every slot. One rank gets `packLengths`.
 *
 * @throws DataError when an example alone exceeds `maxTokens`.
 */
export function packRanks(
  lengths: ArrayLike<number>,
  options: Pick<PackOptions, "maxTokens" | "where"> & { readonly ranks: number },
): number[][][] {
  const { ranks, maxTokens } = options;
  const batches = packLengths(lengths, options);
  if (ranks === 1) return [batches];
  const slots = Math.ceil(batches.length / ranks);
  const bins = dealOut(lengths, slots * ranks, maxTokens) ?? batches;
  const load = (members: readonly number[]) => members.reduce((sum, i) => sum + lengths[i]!, 0);
  const first = (members: readonly number[]) => members[0] ?? Number.POSITIVE_INFINITY;
  const falling = bins
    .filter((members) => members.length > 0)
    .map((members) => ({ members, load: load(members) }))
    .sort((a, b) => b.load - a.load || first(a.members) - first(b.members))
    .map(({ members }) => members);
  return Array.from({ length: ranks }, (_, rank) =>
    Array.from({ length: slots }, (_, slot) => {
      const place = slot % 2 === 0 ? rank : ranks - 1 - rank;
      return falling[slot * ranks + place] ?? [];
    }),
  );
}

/** Examples in `count` bins of about equal load, in data order; undefined where one would exceed `maxTokens`. */
function dealOut(
  lengths: ArrayLike<number>,
  count: number,
  maxTokens: number,
): number[][] | undefined {
  const bins = Array.from({ length: count }, () => ({ load: 0, members: [] as number[] }));
  const falling = Array.from(lengths, (_, i) => i).sort(
    (a, b) => lengths[b]! - lengths[a]! || a - b,
  );
  for (const i of falling) {
    const bin = bins.reduce((least, other) => (other.load < least.load ? other : least));
    bin.load += lengths[i]!;
    if (bin.load > maxTokens) return undefined; // the one with most room
    bin.members.push(i);
  }
  return bins.map(({ members }) => members.sort((a, b) => a - b));
}
