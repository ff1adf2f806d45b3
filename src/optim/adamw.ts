import type { Stream, Tensor } from "../native/index.js";

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

/**
 * AdamW with global-norm clipping over flat buffers [Loshchilov & Hutter 2019]. The norm and the clip factor
 * stay on the device; an update whose norm is not finite changes nothing.
 */
export class AdamW {
  /** (2) f32: gradient norm before clipping, clip factor. */
  readonly clip: Tensor;
  readonly #partials: Tensor;
  readonly #partialsOf: readonly Tensor[];
  readonly #ranges: readonly { range: FlatParameters; decay: boolean }[];
  readonly #parameters: readonly FlatParameters[];
  readonly #options: AdamWOptions;

  /**
   * @param clip (2) f32 and `partials` (buffers · NORM_PARTIALS) f32: scratch that the caller owns.
   */
  constructor(
    parameters: readonly FlatParameters[],
    options: AdamWOptions,
    clip: Tensor,
    partials: Tensor,
  ) {
    this.#parameters = parameters;
    this.#options = options;
    this.clip = clip;
    this.#partials = partials;
    this.#partialsOf = parameters.map((_, i) =>
      partials.slice(i * NORM_PARTIALS, (i + 1) * NORM_PARTIALS),
    );
    this.#ranges = parameters.flatMap((flat) => [
      { range: slice(flat, 0, flat.decayed), decay: true },
      { range: slice(flat, flat.decayed, flat.weight.rows), decay: false },
    ]);
  }

  /** Enqueues clip and update. @param step counts from 1, for the bias corrections. */
  step(s: Stream, step: number, learningRate: number): void {
    const { adamBeta1, adamBeta2, adamEpsilon, weightDecay, maxGradNorm } = this.#options;
    this.#parameters.forEach((flat, i) => {
      s.sumSquares(this.#partialsOf[i]!, flat.grad);
    });
    s.clipFactor(this.clip, this.#partials, maxGradNorm);
    for (const { range, decay } of this.#ranges) {
      const { weight, master, m, v, grad } = range;
      const rate = decay ? weightDecay : 0;
      s.adamw(
        weight,
        master,
        m,
        v,
        grad,
        this.clip,
        learningRate,
        adamBeta1,
        adamBeta2,
        adamEpsilon,
        rate,
        step,
      );
    }
  }
}

function slice(flat: FlatParameters, begin: number, end: number): FlatParameters {
  const cut = (tensor: Tensor) => tensor.slice(begin, end);
  const weight = cut(flat.weight);
  const master = flat.master === flat.weight ? weight : cut(flat.master);
  return { weight, master, m: cut(flat.m), v: cut(flat.v), grad: cut(flat.grad), decayed: 0 };
}
