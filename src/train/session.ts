import type { StoredTensor } from "../checkpoint/weights.js";
import { STAGING_BYTES, WeightMover } from "../checkpoint/weights.js";
import type { BlockSpec, ModelShape } from "../model/index.js";
import {
  type Arena,
  type Device,
  type DType,
  openDevice,
  type Stream,
  type Tensor,
  type Window,
} from "../native/index.js";
import { NORM_PARTIALS } from "../optim/adamw.js";
import { flatBytes, ResidentStore } from "../parallel/resident.js";
import type { BlockTensors, ParamStore } from "../parallel/store.js";
import { type BatchLimits, type BufferSpec, Buffers, passBuffers } from "./buffers.js";
import { Pass } from "./pass.js";

/** Tensors of the optimizer besides its flat state: clip factor and partial sums of the norm. */
export function optimizerBuffers(blocks: number): BufferSpec[] {
  return [
    { lifetime: "metrics", name: "clip", dtype: "f32", shape: [2] },
    { lifetime: "metrics", name: "normPartials", dtype: "f32", shape: [blocks * NORM_PARTIALS] },
  ];
}

export interface SessionOptions {
  readonly device?: "cpu" | "cuda" | "auto";
  readonly threads?: number;
  readonly shape: ModelShape;
  /** Blocks in the store's order: layers, then the edge. */
  readonly blocks: readonly BlockSpec[];
  readonly dtype: DType;
  readonly limits: BatchLimits;
  readonly training: boolean;
  readonly checkpointing?: boolean;
}

/** A model on a device with everything a pass needs; memory is allocated here and nowhere later. */
export class Session {
  readonly device: Device;
  readonly stream: Stream;
  readonly store: ResidentStore;
  readonly pass: Pass;
  readonly buffers: Buffers;
  readonly #arena: Arena;
  readonly #blocks: readonly BlockSpec[];
  readonly #means: Window;
  readonly #losses: Window;
  readonly #options: SessionOptions;

  constructor(options: SessionOptions) {
    const { shape, blocks, dtype, limits, training, checkpointing = false } = options;
    const mode = { training, checkpointing };
    this.#blocks = blocks;
    this.#options = options;
    this.device = openDevice(
      options.device ?? "auto",
      options.threads ? { threads: options.threads } : {},
    );
    this.stream = this.device.stream();
    const stateBytes = blocks.reduce((sum, block) => {
      const { weight, master, moments, grad } = flatBytes(block, dtype, training);
      return sum + weight + master + moments + grad;
    }, 0);
    this.#arena = this.device.arena(stateBytes, "model and optimizer");
    this.store = new ResidentStore(this.#arena, blocks, dtype, training);
    const specs = passBuffers(shape, dtype, limits, mode);
    this.buffers = new Buffers(
      this.device,
      [...specs, ...optimizerBuffers(blocks.length)],
      "buffers",
    );
    this.#means = this.buffers.tensor("means").window();
    this.#losses = this.buffers.tensor("losses").window();
    this.pass = new Pass(this.stream, shape, this.store, this.buffers, limits, mode);
  }

  /** The model's tensors by their names in a checkpoint; loading fills `weight` and `master` of each. */
  weights(): StoredTensor[] {
    return this.#stored("", (b) => [this.store.masters(b), this.store.acquire(b)]);
  }

  /** One state of the optimizer under `prefix` + checkpoint name. */
  optimizerState(kind: "master" | "m" | "v", prefix: string): StoredTensor[] {
    if (kind === "master")
      return this.#stored(prefix, (b) => [this.store.masters(b), this.store.acquire(b)]);
    return this.#stored(prefix, (b) => [this.store.moments(b)[kind]]);
  }

  /** The layer walk over the same buffers, enqueued on another stream; while it walks the first must rest. */
  secondPass(stream: Stream, store: ParamStore): Pass {
    const { shape, limits, training, checkpointing = false } = this.#options;
    return new Pass(stream, shape, store, this.buffers, limits, { training, checkpointing });
  }

  /** Means and loss terms of the first `count` responses of the step, once they are computed. */
  async readResponses(count: number): Promise<{ means: Float32Array; losses: Float32Array }> {
    const read = (window: Window) =>
      this.stream.read(window.set(0, count)) as Promise<Float32Array>;
    const [means, losses] = await Promise.all([read(this.#means), read(this.#losses)]);
    return { means, losses };
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
    this.buffers.dispose();
    this.#arena.dispose();
    this.device.dispose();
  }

  #stored(prefix: string, tensorsOf: (block: number) => BlockTensors[]): StoredTensor[] {
    return this.#blocks.flatMap((block, b) => {
      const sets = tensorsOf(b);
      return block.parameters.flatMap(({ name, shape, parts }) => {
        const tensors = [...new Set(sets.map((set) => set[name] as Tensor))];
        let begin = 0;
        return parts.map((part) => {
          const stored = {
            name: prefix + part.name,
            shape: [part.rows, ...shape.slice(1)],
            tensors,
            begin,
          };
          begin += part.rows;
          return stored;
        });
      });
    });
  }
}
