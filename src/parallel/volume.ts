import type { DType } from "../native/index.js";
import { type FlatSpec, shardedElements, type ZeroStage } from "./layout.js";
import { type Collective, type CommTask, StepWalk } from "./walk.js";

/** What a step sends, as far as it does not follow from the schedule. */
export interface VolumeOptions {
  readonly stage: ZeroStage;
  readonly size: number;
  /** Layers, then the edge. */
  readonly blocks: readonly FlatSpec[];
  readonly dtype: DType;
  /** Micro-batches of a step on each rank. */
  readonly slots: number;
  /** f32 numbers that the gradient norm is summed from. */
  readonly normPartials: number;
  /** Responses of a step over all ranks: each has a mean and a term of the loss. */
  readonly responses: number;
}

/** Operations of one kind in an optimizer step, and the bytes that one rank sends to others by them. */
export interface Volume {
  readonly op: Collective;
  readonly calls: number;
  readonly bytes: number;
}

/** Bytes of the whole buffer that a task moves among the ranks. */
export function taskBytes(task: CommTask, options: VolumeOptions): number {
  const { blocks, size, dtype } = options;
  if (task.exchange === "norm") return 4 * options.normPartials;
  if (task.exchange === "means") return 4 * options.responses;
  if (task.exchange === "losses") return 4 * (options.responses + 1); // and whether to stop
  const elements = shardedElements(blocks[task.block]!, size);
  return elements * (task.exchange === "weights" && dtype === "bf16" ? 2 : 4);
}

/**
 * Bytes that rank `rank` sends to others in one operation on `bytes` in all: what is not its own, to gather or to
 * sum. An all-reduce does both, with parts of whole f32 numbers.
 */
export function sentBytes(op: Collective, bytes: number, size: number, rank: number): number {
  if (op !== "all_reduce") return (bytes / size) * (size - 1);
  const count = bytes / 4;
  const begin = (part: number) => Math.floor((count * part) / size);
  const own = begin(rank + 1) - begin(rank);
  return 4 * (count - own + (size - 1) * own);
}

/** What rank `rank` sends in one optimizer step, by operation. Default: the last one, which sends the most. */
export function stepVolume(options: VolumeOptions, rank = options.size - 1): Volume[] {
  const walk = new StepWalk({ ...options, layers: options.blocks.length - 1 });
  walk.step(); // which finds none of the weights that a step leaves to the next
  const totals = new Map<Collective, { calls: number; bytes: number }>();
  for (const task of walk.step()) {
    if (task.stream !== "comm") continue;
    const total = totals.get(task.op) ?? { calls: 0, bytes: 0 };
    total.calls += 1;
    total.bytes += sentBytes(task.op, taskBytes(task, options), options.size, rank);
    totals.set(task.op, total);
  }
  return [...totals].map(([op, total]) => ({ op, ...total }));
}
