import { piecesWithin, type TensorPiece } from "../checkpoint/pieces.js";
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

  /**
   * One state of the optimizer, under `prefix` + checkpoint name.
   * @param part all that this rank holds, or its own part: those of all ranks make up the whole, each element once.
   */
  optimizerState(kind: StateKind, prefix: string, part: "held" | "own" = "held"): StoredPiece[] {
    return this.blocks.flatMap((block, b) => {
      const layout = this.store.layouts[b]!;
      const tensors = [this.store.shard(kind, b)];
      const begin = layout[part].begin - layout.held.begin;
      const pieces = piecesWithin(flatTensors(block, layout, prefix), layout[part]);
      return pieces.map((piece) => ({ ...piece, at: begin + piece.at, tensors }));
    });
  }

  /** The own part of another rank, as {@link optimizerState} has it there. */
  statePieces(prefix: string, rank: number): TensorPiece[] {
    return this.blocks.flatMap((block, b) => {
      const layout = this.store.layouts[b]!;
      const part = layout.elements / this.store.size;
      const range = { begin: rank * part, end: (rank + 1) * part };
      return piecesWithin(flatTensors(block, layout, prefix), range);
    });
  }

  /**
   * Runs `work` with a mover whose staging memory lives only that long.
   * @param memory of the model, or where the optimizer's state lies: host memory when it is offloaded.
   */
  async withMover<T>(
    work: (mover: WeightMover) => Promise<T>,
    memory: "model" | "state" = "model",
  ): Promise<T> {
    const host = memory === "state" ? this.#host : undefined;
    const arena = (host ?? this).device.arena(STAGING_BYTES, "staging");
    try {
      const staging = arena.tensor("f32", [STAGING_BYTES / 4]);
      return await work(new WeightMover((host ?? this).stream, staging));
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
