import type { ZeroStage } from "./layout.js";

/**
 * What a rank enqueues in one optimizer step, as a list: the calls of the layer walk on the compute stream, the
 * exchanges of the store on the communicator's stream, and who waits for whom. It is the store's schedule without
 * tensors: `volume.ts` counts its bytes and `train/scaling.ts` its time. A test holds it against the counters of
 * a communicator in training.
 */

/** What a rank computes, in a block or, where `block` is −1, in all of the model. */
export type Part = "embed" | "forward" | "head" | "recompute" | "backward" | "norm" | "update";

/** What ranks exchange. */
export type Exchange = "weights" | "gradients" | "norm" | "means" | "losses";
export type Collective = "all_gather" | "reduce_scatter" | "all_reduce";

interface Entry {
  /** Blocks 0 … L − 1 are layers, L is the edge; −1: no block. */
  readonly block: number;
  /** Indices into the walk. */
  readonly after: readonly number[];
}

/** An entry of the compute stream. */
export interface ComputeTask extends Entry {
  readonly stream: "compute";
  readonly part: Part;
}

/** An entry of the communicator's stream. */
export interface CommTask extends Entry {
  readonly stream: "comm";
  readonly op: Collective;
  readonly exchange: Exchange;
}

/** One entry. It starts when the entry before it on its stream is done, and all of `after`. */
export type Task = ComputeTask | CommTask;

/** What decides the schedule of a step. */
export interface WalkOptions {
  readonly stage: ZeroStage;
  /** Ranks. */
  readonly size: number;
  /** L. */
  readonly layers: number;
  /** Micro-batches of a step on each rank, empty ones included. */
  readonly slots: number;
}

/** A block in one of the two places that gathered layers take turns in. */
interface GatheredLayer {
  readonly block: number;
  /** The exchange that fills it. */
  readonly ready: number;
}

/** Builds the schedule of steps that follow one another. */
export class StepWalk {
  readonly tasks: Task[] = [];
  readonly #options: WalkOptions;
  readonly #shared: boolean;
  readonly #edge: number;
  /** The exchange after which a block's weights are whole; −1: they are. */
  readonly #whole: number[];
  /** Stage 3: layer l lies in place l mod 2. */
  readonly #gathered: (GatheredLayer | undefined)[] = [undefined, undefined];
  /** The last computation that read a place, or wrote it in the case of gradients. */
  readonly #lastRead = [-1, -1];
  readonly #lastUpdate: number[];
  /** The exchange that empties a place of gradients being summed. */
  readonly #summed = [-1, -1];
  #lastCompute = -1;
  #lastExchange = -1;

  constructor(options: WalkOptions) {
    this.#options = options;
    this.#shared = options.size > 1;
    this.#edge = options.layers;
    this.#whole = Array.from({ length: options.layers + 1 }, () => -1);
    this.#lastUpdate = [...this.#whole];
  }

  /** Appends a step, in the state that the one before left, and returns it. */
  step(): Task[] {
    const { layers, slots } = this.#options;
    const begin = this.tasks.length;
    for (let slot = 0; slot < slots; slot++) {
      this.#microBatch(slot === slots - 1);
    }
    this.#finish();
    for (const block of [this.#edge, ...Array(layers).keys()]) this.#update(block);
    return this.tasks.slice(begin);
  }

  #microBatch(last: boolean): void {
    const { layers } = this.#options;
    this.#compute("embed", this.#edge, [this.#weights(this.#edge)]);
    for (let l = 0; l < layers; l++) {
      if (l + 1 < layers) this.#prefetch(l + 1);
      this.#read(l, this.#compute("forward", l, [this.#weights(l)]));
    }
    this.#compute("head", this.#edge, []);
    for (let l = layers - 1; l >= 0; l--) {
      if (l > 0) this.#prefetch(l - 1);
      this.#compute("recompute", l, [this.#weights(l)]);
      this.#read(l, this.#compute("backward", l, [this.#summed[l % 2]!]));
      this.#reduceLayer(l, last);
    }
    this.#compute("embed", this.#edge, []);
    if (last) this.#reduce(this.#edge);
  }

  /** Results travel behind the gradients; the norm needs the parts of all ranks. */
  #finish(): void {
    const { stage } = this.#options;
    if (this.#shared) {
      for (const results of ["means", "losses"] as const)
        this.#exchange("all_reduce", results, -1, [this.#lastCompute]);
    }
    this.#compute("norm", -1, [this.#lastExchange]);
    if (!this.#shared || stage === 0) return;
    const partials = this.#exchange("all_reduce", "norm", -1, [this.#lastCompute]);
    this.#compute("norm", -1, [partials]);
  }

  #update(block: number): void {
    const { stage } = this.#options;
    this.#lastUpdate[block] = this.#compute("update", block, []);
    if (!this.#shared || stage === 0) return;
    if (stage === 3 && block !== this.#edge) {
      // What is gathered is older than the update; the next walk begins with the first two layers.
      if (this.#gathered[block % 2]?.block === block) this.#gathered[block % 2] = undefined;
      if (block < 2) this.#prefetch(block);
      return;
    }
    this.#whole[block] = this.#exchange("all_gather", "weights", block, [this.#lastCompute]);
  }

  /** Stage 3: gathers a layer unless its place holds it still. */
  #prefetch(l: number): void {
    if (!this.#shared || this.#options.stage !== 3) return;
    if (this.#gathered[l % 2]?.block === l) return;
    const after = Math.max(this.#lastRead[l % 2]!, this.#lastUpdate[l]!);
    const ready = this.#exchange("all_gather", "weights", l, [after]);
    this.#gathered[l % 2] = { block: l, ready };
  }

  /** The exchange that a block's weights come from. */
  #weights(block: number): number {
    if (block === this.#edge || this.#options.stage !== 3) return this.#whole[block]!;
    this.#prefetch(block);
    return this.#gathered[block % 2]?.ready ?? -1;
  }

  #read(l: number, task: number): void {
    this.#lastRead[l % 2] = task;
  }

  #reduceLayer(l: number, last: boolean): void {
    const each = this.#options.stage >= 2;
    if (!each && !last) return;
    const sum = this.#reduce(l);
    if (each) this.#summed[l % 2] = sum;
  }

  #reduce(block: number): number {
    if (!this.#shared) return -1;
    const op = this.#options.stage === 0 ? "all_reduce" : "reduce_scatter";
    return this.#exchange(op, "gradients", block, [this.#lastCompute]);
  }

  #compute(part: Part, block: number, after: readonly number[]): number {
    this.tasks.push({ stream: "compute", part, block, after: after.filter((task) => task >= 0) });
    this.#lastCompute = this.tasks.length - 1;
    return this.#lastCompute;
  }

  #exchange(op: Collective, exchange: Exchange, block: number, after: readonly number[]): number {
    const known = after.filter((task) => task >= 0);
    this.tasks.push({ stream: "comm", op, exchange, block, after: known });
    this.#lastExchange = this.tasks.length - 1;
    return this.#lastExchange;
  }
}
