import { type TensorEntry, tensorBytes } from "./safetensors-header.js";

const SINGLE = "model.safetensors";

/** One file of a model and the tensors in it. */
export interface Shard {
  readonly file: string;
  readonly entries: readonly TensorEntry[];
}

/** The files of a model; `index` is the content of `model.safetensors.index.json` if there are several. */
export interface ShardPlan {
  readonly shards: readonly Shard[];
  readonly index?: {
    readonly metadata: { readonly total_size: number };
    readonly weight_map: Readonly<Record<string, string>>;
  };
}

/**
 * Spreads tensors over files as transformers names them: in order, a new file where the next tensor
 * would pass `maxShardBytes`. A tensor is never split.
 */
export function planShards(entries: readonly TensorEntry[], maxShardBytes = 5e9): ShardPlan {
  const groups: TensorEntry[][] = [[]];
  let groupBytes = 0;
  let totalBytes = 0;
  for (const entry of entries) {
    const bytes = tensorBytes(entry) ?? Number.NaN;
    if (groupBytes > 0 && groupBytes + bytes > maxShardBytes) {
      groups.push([]);
      groupBytes = 0;
    }
    groups.at(-1)!.push(entry);
    groupBytes += bytes;
    totalBytes += bytes;
  }
  if (groups.length === 1) return { shards: [{ file: SINGLE, entries: groups[0]! }] };
  const five = (n: number): string => String(n).padStart(5, "0");
  const shards = groups.map((group, i) => ({
    file: `model-${five(i + 1)}-of-${five(groups.length)}.safetensors`,
    entries: group,
  }));
  const weightMap = shards.flatMap(({ file, entries }) => entries.map(({ name }) => [name, file]));
  return {
    shards,
    index: {
      metadata: { total_size: totalBytes },
      weight_map: Object.fromEntries(weightMap.sort(([a], [b]) => (a! < b! ? -1 : 1))) as Record<
        string,
        string
      >,
    },
  };
}
