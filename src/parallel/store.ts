import type { Stream, Tensor } from "../native/index.js";
import type { HostState } from "./host-state.js";
import type { BlockLayout, ZeroStage } from "./layout.js";

/** Tensors of one block by parameter name. */
export type BlockTensors = Readonly<Record<string, Tensor>>;

/**
 * Where parameters live. The layer walk asks for a block before it computes with it and says when its
 * gradients are complete; a resident store does nothing, a sharded one gathers and scatters.
 * Blocks 0..L−1 are layers, block L is the edge (embedding, final norm, head).
 */
export interface ParamStore {
  /** Starts to fetch a block that will be needed soon. */
  prefetch(block: number): void;
  /** The block's weights, in the run's dtype; valid until released. */
  acquire(block: number): BlockTensors;
  release(block: number): void;
  /** The block's f32 gradients, to accumulate into. */
  gradients(block: number): BlockTensors;
  /** The block's gradients of this micro-batch are complete. */
  reduce(block: number): void;
}

/** The part of a block that this rank updates, as flat buffers: everything, where nothing is shared. */
export interface FlatBlock {
  /** (n) in the run's dtype. */
  readonly weight: Tensor;
  /** (n) f32: what the optimizer updates; the weight itself in an f32 run without offload. */
  readonly master: Tensor;
  /** (n) f32, Adam's moments. */
  readonly m: Tensor;
  readonly v: Tensor;
  /** (n) f32: sums over all ranks, once {@link ModelStore.finishGradients} was called. */
  readonly grad: Tensor;
  /** Elements before this one get weight decay. */
  readonly decayed: number;
}

/** A walk that is not part of a step. */
export interface LocalWalk extends ParamStore {
  /** Weights come from all ranks, so that all have to walk as far as the others do. */
  readonly lockstep: boolean;
  end(): void;
}

/** One kind of the optimizer's state. */
export type StateKind = "master" | "m" | "v";

/**
 * A store with what a training loop, an optimizer and checkpoints need besides the walk. With several ranks every
 * rank makes the same calls in the same order.
 *
 * A step: `beginStep`, for each micro-batch `beginPass` and a walk, `finishGradients`, the update of every one of
 * `blocks`, each followed by `updated`.
 */
export interface ModelStore extends ParamStore {
  readonly stage: ZeroStage;
  readonly rank: number;
  readonly size: number;
  readonly blocks: readonly FlatBlock[];
  readonly layouts: readonly BlockLayout[];

  /** Gradients start at zero. */
  beginStep(): void;
  /** The next walk is one of the step; `last`: its gradients are complete after it. */
  beginPass(last: boolean): void;
  /** What is enqueued later finds the gradients of `blocks` summed over ranks. */
  finishGradients(): void;
  /** Sums partial sums of the gradient norm over ranks that hold different parts. */
  sumPartials(partials: Tensor): void;
  /** The update of the block's weights is enqueued: they may go to the other ranks. */
  updated(block: number): void;

  /**
   * The store of one more walk, on another stream, whose gradients are this rank's alone and are lost. What the
   * store's own stream had to do is done, and it rests until the walk ends.
   */
  local(stream: Stream): LocalWalk;

  /** The optimizer's state in host memory, where it lies there. */
  readonly host?: HostState | undefined;
  /** Where the optimizer's state lies: the stream of the walk, or one of the CPU device when it is offloaded. */
  readonly stateStream: Stream;
  /** The held part of the optimizer's state: elements `layouts[block].held`, f32. */
  shard(kind: StateKind, block: number): Tensor;
  /**
   * The block's f32 weights, whole; valid until another block is gathered. They lie in the memory of gradients, which
   * must be at rest: between steps. All ranks call it, in the same order.
   */
  gatherMasters(block: number): Promise<BlockTensors>;
  /** After masters were written by {@link shard}: rounds them and gives every rank its weights. */
  shareWeights(): Promise<void>;
  /** Frees what the store owns besides the memory it was given. */
  dispose(): void;
}
