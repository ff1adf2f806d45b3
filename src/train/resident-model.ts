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
import { type HostState, openHostState } from "../parallel/host-state.js";
import {
  type StoreOptions,
  shardedElements,
  storeBytes,
  type ZeroStage,
} from "../parallel/layout.js";
import { ResidentStore } from "../parallel/resident.js";
import { type Fabric, ShardedStore } from "../parallel/sharded.js";
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
  /** The other ranks of a run, on the model's device; absent: one process. */
  readonly fabric?: Fabric | undefined;
  /** What ranks share among them. Default: 0. */
  readonly stage?: ZeroStage;
  /** The optimizer's state lies in host memory; without effect on the CPU device. */
  readonly offload?: boolean;
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
  readonly #host: HostState | undefined;

  /** @throws MemoryError when they do not fit. */
  constructor(options: ResidentModelOptions) {
    const { shape, blocks, dtype, training, device = "auto", threads, fabric } = options;
    this.shape = shape;
    this.blocks = blocks;
    this.dtype = dtype;
    this.training = training;
    this.#ownDevice = typeof device === "string";
    this.device =
      typeof device === "string" ? openDevice(device, threads ? { threads } : {}) : device;
    this.stream = this.device.stream();
    const offload = training && options.offload === true && this.device.name !== "cpu";
    const stage = fabric ? (options.stage ?? 0) : 0;
    const size = fabric?.comm.size ?? 1;
    const lines = storeBytes(blocks, dtype, { stage, size, training, offload });
    const own = lines.filter(({ host }) => !host);
    let host: HostState | undefined;
    try {
      if (offload)
        host = openHostState(lines, largestPart(blocks, { stage, size }), dtype, threads);
      this.#host = host;
      const bytes = own.reduce((sum, line) => sum + line.bytes, 0);
      this.#arena = this.device.arena(bytes, "model and optimizer");
    } catch (error) {
      host?.dispose();
      this.stream.dispose();
      if (this.#ownDevice) this.device.dispose();
      throw error;
    }
    const { stream, device: opened } = this;
    const common = { stream, stage, specs: blocks, dtype, arena: this.#arena, host };
    this.store = fabric
      ? new ShardedStore({ ...common, device: opened, fabric })
      : new ResidentStore(stream, this.#arena, blocks, dtype, training, host);
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
    this.#host?.dispose();
    if (this.#ownDevice) this.device.dispose();
  }
}

/** Elements of the largest part of a block whose optimizer state a rank keeps. */
function largestPart(
  blocks: readonly BlockSpec[],
  { stage, size }: Pick<StoreOptions, "stage" | "size">,
): number {
  const parts = stage === 0 ? 1 : size;
  return Math.max(...blocks.map((block) => shardedElements(block, size) / parts));
}
