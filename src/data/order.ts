/**
 * Which pairs a step trains on. Pure functions of the recipe and the step's number, so that the number
 * alone is enough to resume.
 */

/** How a run walks over its pairs. */
export interface OrderOptions {
  /** Pairs (or sequences) in the data set. */
  readonly count: number;
  /** Pairs per optimizer step, over all ranks and accumulation. */
  readonly perStep: number;
  readonly shuffle: boolean;
  readonly seed: number;
}

/** One optimizer step's place in the data. */
export interface StepPosition {
  /** 0-based epoch. */
  readonly epoch: number;
  /** 0-based step inside the epoch. */
  readonly stepInEpoch: number;
  /** The step takes `order[begin .. end)` of its epoch's order. */
  readonly begin: number;
  readonly end: number;
  /** Epochs done when the step is done, e.g. 0.25. */
  readonly epochsDone: number;
}

/**
 * A generator of 32-bit integers: xoshiro128** [Blackman & Vigna 2021], its state filled by splitmix32
 * from the keys. The sequence for given keys is fixed for good: resumed runs depend on it.
 */
export function random32(...keys: readonly number[]): () => number {
  let z = 0;
  const splitmix = (): number => {
    z = (z + 0x9e3779b9) | 0;
    let t = z ^ (z >>> 16);
    t = Math.imul(t, 0x21f0aaad);
    t ^= t >>> 15;
    t = Math.imul(t, 0x735a2d97);
    return (t ^ (t >>> 15)) >>> 0;
  };
  for (const key of keys) {
    // Both halves of a key count, so that seeds above 2^32 differ.
    z = splitmix() ^ key;
    z = splitmix() ^ Math.floor(key / 2 ** 32);
  }
  let a = splitmix();
  let b = splitmix();
  let c = splitmix();
  let d = splitmix() | 1; // the state must not be all zero
  const rotate = (x: number, k: number): number => (x << k) | (x >>> (32 - k));
  return () => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotate(d, 11);
    return result;
  };
}

/** An unbiased integer in `[0, bound)`: values of the last, incomplete range are drawn again. */
function below(bound: number, next: () => number): number {
  const limit = 2 ** 32 - (2 ** 32 % bound);
  for (;;) {
    const value = next();
    if (value < limit) return value % bound;
  }
}

/** The order of an epoch: file order, or a Fisher-Yates permutation keyed by seed and epoch. */
export function epochOrder({ count, shuffle, seed }: OrderOptions, epoch: number): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  if (!shuffle) return order;
  const next = random32(seed, epoch);
  for (let i = count - 1; i > 0; i--) {
    const j = below(i + 1, next);
    const value = order[i] as number;
    order[i] = order[j] as number;
    order[j] = value;
  }
  return order;
}

/** Optimizer steps of one epoch; the last one holds what remains. */
export function stepsPerEpoch({ count, perStep }: Pick<OrderOptions, "count" | "perStep">): number {
  return Math.ceil(count / perStep);
}

/**
 * Optimizer steps of a run: `maxSteps` where it is above 0, else ⌈epochs · steps per epoch⌉, as Hugging
 * Face's Trainer counts them.
 */
export function stepCount(
  options: Pick<OrderOptions, "count" | "perStep">,
  length: { readonly numTrainEpochs: number; readonly maxSteps?: number | null | undefined },
): number {
  if (typeof length.maxSteps === "number" && length.maxSteps > 0) return length.maxSteps;
  return Math.ceil(length.numTrainEpochs * stepsPerEpoch(options));
}

/** The place of 0-based optimizer step `step`. */
export function stepPosition(
  options: Pick<OrderOptions, "count" | "perStep">,
  step: number,
): StepPosition {
  const steps = stepsPerEpoch(options);
  const epoch = Math.floor(step / steps);
  const stepInEpoch = step - epoch * steps;
  const begin = stepInEpoch * options.perStep;
  const end = Math.min(begin + options.perStep, options.count);
  return { epoch, stepInEpoch, begin, end, epochsDone: epoch + (stepInEpoch + 1) / steps };
}

/** The pairs of successive steps; the order of an epoch is made once and kept. */
export function createOrder(options: OrderOptions): (step: number) => Int32Array {
  let epoch = -1;
  let order = new Int32Array(0);
  return (step) => {
    const position = stepPosition(options, step);
    if (position.epoch !== epoch) {
      epoch = position.epoch;
      order = epochOrder(options, epoch) as Int32Array<ArrayBuffer>;
    }
    return order.subarray(position.begin, position.end);
  };
}
