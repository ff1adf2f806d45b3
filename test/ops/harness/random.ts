/**
 * The seed of this run: fresh inputs every time, so that a bug that needs luck is found one day.
 * `SIMPER_TEST_SEED` repeats a run; every failure prints the seed it happened with.
 */
export const testSeed: number =
  process.env.SIMPER_TEST_SEED === undefined
    ? Math.floor(Math.random() * 2 ** 32)
    : Number(process.env.SIMPER_TEST_SEED) >>> 0;

/** A counter run through an integer hash: small, fast, and good enough for test inputs. */
export class Random {
  private state: number;

  /** The same seed and label give the same numbers, whatever else ran before. */
  constructor(label: string, seed = testSeed) {
    this.state = seed | 0;
    for (const letter of label) this.state = hash(this.state ^ letter.charCodeAt(0));
  }

  /** In [0, 1). */
  uniform(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    return (hash(this.state) >>> 0) / 2 ** 32;
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.uniform() * limit);
  }

  /** Mean 0, variance 1. [Box & Muller 1958] */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** The numbers 0 … n-1 in a random order. */
  permutation(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}

function hash(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x45d9f3b);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  return h ^ (h >>> 16);
}
