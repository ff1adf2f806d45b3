import { piecesWithin } from "../checkpoint/pieces.js";
import { STAGING_BYTES, type StoredPiece, WeightMover } from "../checkpoint/weights.js";
import type { BlockSpec, ModelShape } from "../model/index.js";
import {
  type Arena,
  type Device,
  type DeviceName,
  type DType,
  openDevice,
  type Stream,
} from "../native/index.js";
import { storeBytes } from "../parallel/layout.js";
import { ResidentStore } from "../parallel/resident.js";
import type { ModelStore, StateKind } from "../parallel/store.js";
import { flatTensors } from "./stored.js";

export interface ResidentModelOptions {
  /** A name, which opens a device of its own, or one that stays its caller's. */
  readonly device?: DeviceName | Device;
  readonly threads?: number;
  readonly shape: ModelShape;
  /** Blocks in the store's order: layers, then the edge. */
  readonly blocks: readonly BlockSpec[];
  readonly dtype: DType;
  /** With gradients and the optimizer's state. */
  readonly training: boolean;
}

/** A model's parameters on a device of its own, and the stream that works on them. */
export class ResidentModel {
  readonly shape: ModelShape;
  readonly blocks: readonly BlockSpec[];
  readonly dtype: DType;
  readonly training: boolean;
  readonly device: Device;
  readonly stream: Stream;
  readonly store: ModelStore;
  readonly #ownDevice: boolean;
  readonly #arena: Arena;

  /** @throws MemoryError when they do not fit. */
  constructor(options: ResidentModelOptions) {
    const { shape, blocks, dtype, training, device = "auto", threads } = options;
    this.shape = shape;
    this.blocks = blocks;
    this.dtype = dtype;
    this.training = training;
    this.#ownDevice = typeof device === "string";
    this.device =
      typeof device === "string" ? openDevice(device, threads ? { threads } : {}) : device;
    this.stream = this.device.stream();
    const lines = storeBytes(blocks, dtype, { stage: 0, size: 1, training, offload: false });
    const bytes = lines.reduce((sum, line) => sum + line.bytes, 0);
    try {
      this.#arena = this.device.arena(bytes, "model and optimizer");
    } catch (error) {
      this.stream.dispose();
      if (this.#ownDevice) this.device.dispose();
      throw error;
    }
    this.store = new ResidentStore(this.stream, this.#arena, blocks, dtype, training);
  }

  /**
   * What this rank holds of the model's f32 weights, by their names in a checkpoint. Where they were written, the
   * store's `shareWeights` has to follow.
   */
  weights(): StoredPiece[] {
    return this.optimizerState("master", "");
  }

  /** What this rank holds of one state of the optimizer, under `prefix` + checkpoint name. */
  optimizerState(kind: StateKind, prefix: string): StoredPiece[] {
    const { layouts } = this.store;
    return this.blocks.flatMap((block, b) => {
      const layout = layouts[b]!;
      const tensors = [this.store.shard(kind, b)];
      const pieces = piecesWithin(flatTensors(block, layout, prefix), layout.held);
      return pieces.map((piece) => ({ ...piece, tensors }));
    });
  }

  /** Runs `work` with a mover whose staging memory lives only that long. */
  async withMover<T>(work: (mover: WeightMover) => Promise<T>): Promise<T> {
    const arena = this.device.arena(STAGING_BYTES, "staging");
    try {
      return await work(new WeightMover(this.stream, arena.tensor("f32", [STAGING_BYTES / 4])));
    } finally {
      arena.dispose();
    }
  }

  dispose(): void {
    this.stream.dispose();
    this.store.dispose();
    this.#arena.dispose();
    if (this.#ownDevice) this.device.dispose();
  }
}
