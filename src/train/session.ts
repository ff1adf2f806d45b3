import type { Device, Stream, Window } from "../native/index.js";
import { NORM_PARTIALS } from "../optim/adamw.js";
import type { ModelStore, ParamStore } from "../parallel/store.js";
import { type BatchLimits, type BufferSpec, Buffers, passBuffers } from "./buffers.js";
import { Pass } from "./pass.js";
import type { ResidentModel } from "./resident-model.js";

/** Tensors of the optimizer besides its flat state: clip factor and partial sums of the norm. */
export function optimizerBuffers(blocks: number): BufferSpec[] {
  return [
    { lifetime: "metrics", name: "clip", dtype: "f32", shape: [2] },
    { lifetime: "metrics", name: "normPartials", dtype: "f32", shape: [blocks * NORM_PARTIALS] },
  ];
}

export interface SessionOptions {
  readonly limits: BatchLimits;
  readonly checkpointing?: boolean;
}

/** A model on a device with everything a pass needs; memory is allocated here and nowhere later. */
export class Session {
  readonly model: ResidentModel;
  readonly pass: Pass;
  readonly buffers: Buffers;
  readonly #means: Window;
  readonly #losses: Window;
  readonly #options: SessionOptions;

  /** The model stays its caller's: it is disposed after the session. @throws MemoryError */
  constructor(model: ResidentModel, options: SessionOptions) {
    const { shape, dtype, blocks, training } = model;
    const { limits, checkpointing = false } = options;
    const mode = { training, checkpointing };
    this.model = model;
    this.#options = options;
    const specs = passBuffers(shape, dtype, limits, mode);
    const all = [...specs, ...optimizerBuffers(blocks.length)];
    this.buffers = new Buffers(model.device, all, "buffers");
    this.#means = this.buffers.tensor("means").window();
    this.#losses = this.buffers.tensor("losses").window();
    this.pass = new Pass(model.stream, shape, model.store, this.buffers, limits, mode);
  }

  get device(): Device {
    return this.model.device;
  }

  get stream(): Stream {
    return this.model.stream;
  }

  get store(): ModelStore {
    return this.model.store;
  }

  /** The layer walk over the same buffers, enqueued on another stream; while it walks the first must rest. */
  secondPass(stream: Stream, store: ParamStore): Pass {
    const { shape, training } = this.model;
    const { limits, checkpointing = false } = this.#options;
    return new Pass(stream, shape, store, this.buffers, limits, { training, checkpointing });
  }

  /** Means and loss terms of the first `count` responses of the step, once they are computed. */
  async readResponses(count: number): Promise<{ means: Float32Array; losses: Float32Array }> {
    const read = (window: Window) =>
      this.stream.read(window.set(0, count)) as Promise<Float32Array>;
    const [means, losses] = await Promise.all([read(this.#means), read(this.#losses)]);
    return { means, losses };
  }

  /** Frees the buffers once what is enqueued has run. */
  dispose(): void {
    this.buffers.dispose();
  }
}
