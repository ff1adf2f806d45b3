/** The state of a flat range of parameters. */
export interface AdamState {
  readonly master: Float64Array;
  readonly m: Float64Array;
  readonly v: Float64Array;
}

export interface AdamSettings {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Counts from 1. */
  readonly step: number;
}

/** One update in float64, in place. [Loshchilov & Hutter 2019, alg. 2] */
export function adamw(state: AdamState, grad: Float64Array, factor: number, s: AdamSettings): void {
  const { master, m, v } = state;
  for (let i = 0; i < master.length; i++) {
    const g = factor * grad[i]!;
    m[i] = s.beta1 * m[i]! + (1 - s.beta1) * g;
    v[i] = s.beta2 * v[i]! + (1 - s.beta2) * g * g;
    const mHat = m[i]! / (1 - s.beta1 ** s.step);
    const vHat = v[i]! / (1 - s.beta2 ** s.step);
    master[i]! -= s.lr * (mHat / (Math.sqrt(vHat) + s.eps) + s.weightDecay * master[i]!);
  }
}
