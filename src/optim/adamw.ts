import type { HostArray, Stream, Tensor } from "../native/index.js";

/** Blocks of `sum_squares` per flat buffer: enough for the precision of f32 partial sums. */
export const NORM_PARTIALS = 64;

/** One flat buffer of parameters with its optimizer state: elements below `decayed` get weight decay. */
export interface FlatParameters {
  /** (n) f32 or bf16. */
  readonly weight: Tensor;
  /** (n) f32; the weight itself in an f32 run. */
  readonly master: Tensor;
  readonly m: Tensor; // (n) f32
  readonly v: Tensor; // (n) f32
  readonly grad: Tensor; // (n) f32
  readonly decayed: number;
}

export interface AdamWOptions {
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
}

/** The other ranks of a run, and the host, as far as an update needs them. */
export interface UpdatePartners {
  /** What is enqueued later finds gradients summed over ranks. */
  finishGradients(): void;
  /** Sums partial sums of the norm over ranks that have different gradients. */
  sumPartials(partials: Tensor): void;
  /** The update of buffer `index` is enqueued. */
  updated(index: number): void;
  /** Where masters and moments lie in host memory: where they are updated, too. */
  readonly host?: HostUpdate | undefined;
}

/** What an update in host memory works with besides the optimizer's state. */
export interface HostUpdate {
  /** Of the CPU device. */
  readonly stream: Stream;
  /** (largest buffer) f32. */
  readonly grad: Tensor;
  /** (largest buffer) in the weights' dtype; absent where the masters are the weights. */
  readonly weight: Tensor | undefined;
  readonly clip: Tensor; // (2) f32
  /** Arrays of that length: gradients on their way down, in turns, and weights on their way up. */
  readonly down: readonly [Float32Array, Float32Array];
  readonly up: HostArray;
}

/**
 * AdamW with global-norm clipping over flat buffers [Loshchilov & Hutter 2019]. The norm and the clip factor
 * stay on the device; an update whose norm is not finite changes nothing.
 */
export class AdamW {
  /** (2) f32: gradient norm before clipping, clip factor. */
  readonly clip: Tensor;
  readonly #partials: Tensor;
  readonly #partialsOf: readonly Tensor[];
  readonly #parameters: readonly FlatParameters[];
  readonly #ranges: readonly (readonly DecayRange[])[];
  /** With the optimizer's state in host memory: gradients and weights there, too. */
  readonly #hosted: readonly FlatParameters[];
  readonly #options: AdamWOptions;
  readonly #partners: UpdatePartners | undefined;

  /**
   * @param parameters the edge last: it is updated first, as a walk begins with it.
   * @param clip (2) f32 and `partials` (buffers · NORM_PARTIALS) f32: scratch that the caller owns.
   * @param partners absent: one process, whose gradients are complete when it says `step`.
   */
  constructor(
    parameters: readonly FlatParameters[],
    options: AdamWOptions,
    clip: Tensor,
    partials: Tensor,
    partners?: UpdatePartners,
  ) {
    this.#parameters = parameters;
    this.#options = options;
    this.#partners = partners;
    this.clip = clip;
    this.#partials = partials;
    this.#partialsOf = parameters.map((_, i) =>
      partials.slice(i * NORM_PARTIALS, (i + 1) * NORM_PARTIALS),
    );
    const host = partners?.host;
    this.#hosted = host ? parameters.map((flat) => onHost(flat, host)) : [];
    this.#ranges = (host ? this.#hosted : parameters).map(ranges);
  }

  /**
   * Enqueues clip and update. With the optimizer's state in host memory the update is awaited: gradients come down,
   * weights go up, block by block.
   * @param step counts from 1, for the bias corrections.
   */
  step(s: Stream, step: number, learningRate: number): Promise<void> | undefined {
    const partners = this.#partners;
    partners?.finishGradients();
    this.#parameters.forEach((flat, i) => {
      s.sumSquares(this.#partialsOf[i]!, flat.grad);
    });
    partners?.sumPartials(this.#partials);
    s.clipFactor(this.clip, this.#partials, this.#options.maxGradNorm);
    if (partners?.host) return this.#onHost(s, partners, partners.host, step, learningRate);
    for (const i of this.#order()) {
      this.#update(s, i, this.clip, step, learningRate);
      partners?.updated(i);
    }
    return undefined;
  }

  /** Indices of the buffers, the last one first. */
  #order(): number[] {
    const last = this.#parameters.length - 1;
    return this.#parameters.map((_, i) => (i + last) % (last + 1));
  }

  #update(s: Stream, index: number, clip: Tensor, step: number, learningRate: number): void {
    const { adamBeta1, adamBeta2, adamEpsilon, weightDecay } = this.#options;
    for (const { weight, master, m, v, grad, decays } of this.#ranges[index]!) {
      const decay = decays ? weightDecay : 0;
      s.adamw(
        ...([weight, master, m, v, grad, clip] as const),
        ...([learningRate, adamBeta1, adamBeta2, adamEpsilon, decay, step] as const),
      );
    }
  }

  async #onHost(
    s: Stream,
    partners: UpdatePartners,
    host: HostUpdate,
    step: number,
    learningRate: number,
  ): Promise<void> {
    const order = this.#order();
    const down = (turn: number) => {
      const { grad } = this.#parameters[order[turn]!]!;
      const array = host.down[turn % 2]!.subarray(0, grad.size);
      return { array, read: s.readInto(grad, array) };
    };
    const clip = (await s.read(this.clip)) as Float32Array;
    host.stream.write(host.clip, clip);
    const finite = Number.isFinite(clip[0]);
    let coming = finite && order.length > 0 ? down(0) : undefined;
    for (const [turn, i] of order.entries()) {
      if (coming) {
        const { array, read } = coming;
        await read;
        coming = turn + 1 < order.length ? down(turn + 1) : undefined;
        const { weight, grad } = this.#hosted[i]!;
        host.stream.write(grad, array);
        this.#update(host.stream, i, host.clip, step, learningRate);
        const updated = host.up.subarray(0, weight.size);
        await host.stream.readInto(weight, updated);
        s.write(this.#parameters[i]!.weight, updated);
      }
      partners.updated(i);
    }
  }
}

/** Elements of one buffer that get the same weight decay. */
interface DecayRange extends Omit<FlatParameters, "decayed"> {
  readonly decays: boolean;
}

function ranges(flat: FlatParameters): DecayRange[] {
  const { decayed } = flat;
  const n = flat.weight.rows;
  return [
    { begin: 0, end: decayed, decays: true },
    { begin: decayed, end: n, decays: false },
  ]
    .filter(({ begin, end }) => end > begin)
    .map(({ begin, end, decays }) => ({ ...slice(flat, begin, end), decays }));
}

/** The buffer's state in host memory with a place for its gradient and its weights there. */
function onHost(flat: FlatParameters, host: HostUpdate): FlatParameters {
  const { master, m, v, decayed } = flat;
  const weight = host.weight?.slice(0, master.size) ?? master;
  return { weight, master, m, v, grad: host.grad.slice(0, master.size), decayed };
}

function slice(flat: FlatParameters, begin: number, end: number) {
  const cut = (tensor: Tensor) => tensor.slice(begin, end);
  const weight = cut(flat.weight);
  const master = flat.master === flat.weight ? weight : cut(flat.master);
  return { weight, master, m: cut(flat.m), v: cut(flat.v), grad: cut(flat.grad) };
}
