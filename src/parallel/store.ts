import type { Tensor } from "../native/index.js";

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
