/**
 * Seeded random numbers, the same on every machine: 32-bit integer arithmetic only. The state is a
 * counter that advances by an odd constant; each output mixes it with two multiply-xorshift rounds
 * [Steele, Lea & Flood 2014, SplitMix, at 32 bits].
 */
export class Random {
  #state;

  /** @param {number} seed any integer; equal seeds give equal sequences */
  constructor(seed) {
    this.#state = mix(seed | 0);
  }

  /** @returns {number} uniform in [0, 1) */
  next() {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    return (mix(this.#state) >>> 0) / 2 ** 32;
  }

  /** @param {number} low @param {number} high @returns {number} integer in [low, high] */
  integer(low, high) {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  /** @template T @param {readonly T[]} items @returns {T} one of `items` */
  pick(items) {
    return items[this.integer(0, items.length - 1)];
  }

  /** @param {number} probability @returns {boolean} true that often */
  chance(probability) {
    return this.next() < probability;
  }

  /** @template T @param {readonly T[]} items @param {number} count @returns {T[]} distinct items */
  sample(items, count) {
    const rest = [...items];
    return Array.from({ length: count }, () => rest.splice(this.integer(0, rest.length - 1), 1)[0]);
  }

  /** @returns {number} standard normal [Box & Muller 1958] */
  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
    return radius * Math.cos(2 * Math.PI * this.next());
  }
}

/** @param {string} text @returns {number} unsigned 32-bit hash [Fowler, Noll & Vo, FNV-1a], mixed */
export function hash(text) {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193);
  return mix(h) >>> 0;
}

/** @param {number} x */
function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return x ^ (x >>> 15);
}
