/**
 * The permutation of NumPy's `default_rng(seed).permutation(n)`, with which Hugging Face `datasets` shuffles a
 * data set: `Dataset.shuffle(seed=42)` in the reference. Three parts, each as NumPy has it: a SeedSequence spreads
 * the seed [O'Neill 2015, "Developing a seed_seq alternative"], PCG64 XSL-RR draws 64-bit numbers [O'Neill 2014,
 * PCG], and a Fisher-Yates shuffle takes as many bits as its bound has until they do not exceed it.
 */

const MASK64 = (1n << 64n) - 1n;
const MASK128 = (1n << 128n) - 1n;
const PCG_MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;

/** Words of 32 bits, the lowest first: how a SeedSequence takes an integer. */
function words(seed: number): number[] {
  const list = [seed >>> 0];
  for (let rest = Math.floor(seed / 2 ** 32); rest > 0; rest = Math.floor(rest / 2 ** 32)) {
    list.push(rest >>> 0);
  }
  return list;
}

/** `SeedSequence(seed).generate_state(count, uint32)`. */
function seedSequence(seed: number, count: number): number[] {
  const entropy = words(seed);
  let hash = 0x43b0d7e5;
  const scramble = (value: number, multiplier: number): number => {
    let v = (value ^ hash) >>> 0;
    hash = Math.imul(hash, multiplier) >>> 0;
    v = Math.imul(v, hash) >>> 0;
    return (v ^ (v >>> 16)) >>> 0;
  };
  const mix = (x: number, y: number): number => {
    const v = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) >>> 0;
    return (v ^ (v >>> 16)) >>> 0;
  };
  const pool = Array.from({ length: 4 }, (_, i) => scramble(entropy[i] ?? 0, 0x931e8875));
  const blend = (to: number, value: number): void => {
    pool[to] = mix(pool[to] as number, scramble(value, 0x931e8875));
  };
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) blend(to, pool[from] as number);
  }
  for (const word of entropy.slice(4)) for (let to = 0; to < 4; to++) blend(to, word);

  hash = 0x8b51f9dd;
  return Array.from({ length: count }, (_, i) => scramble(pool[i % 4] as number, 0x58f38ded));
}

/** PCG64 seeded as `default_rng(seed)`: successive 32-bit numbers, the low half of each 64-bit one first. */
function pcg64(seed: number): () => number {
  const seeds = seedSequence(seed, 8).map(BigInt);
  // Pairs of words are 64-bit numbers, low word first; pairs of those are 128-bit numbers, high one first.
  const wide = (i: number): bigint => ((seeds[i + 1] as bigint) << 32n) | (seeds[i] as bigint);
  const start = (wide(0) << 64n) | wide(2);
  const stream = (wide(4) << 64n) | wide(6);
  const increment = ((stream << 1n) | 1n) & MASK128;
  let state = (((increment + start) & MASK128) * PCG_MULTIPLIER + increment) & MASK128;
  let high = -1;
  return () => {
    if (high >= 0) {
      const kept = high;
      high = -1;
      return kept;
    }
    state = (state * PCG_MULTIPLIER + increment) & MASK128;
    const folded = (state >> 64n) ^ (state & MASK64);
    const turn = state >> 122n;
    const value = ((folded >> turn) | (folded << (64n - turn))) & MASK64;
    high = Number(value >> 32n);
    return Number(value & 0xffffffffn);
  };
}

/** An integer in `[0, last]`, 0 < last < 2³¹: as many bits as `last` has, drawn again where they exceed it. */
function upTo(last: number, next: () => number): number {
  const mask = 2 ** (32 - Math.clz32(last)) - 1;
  for (;;) {
    const value = (next() & mask) >>> 0;
    if (value <= last) return value;
  }
}

/**
 * `numpy.random.default_rng(seed).permutation(count)`, number for number.
 *
 * @param count numbers to permute, below 2³¹
 * @param seed a whole number, 0 or more
 */
export function numpyPermutation(count: number, seed: number): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  const next = pcg64(seed);
  for (let i = count - 1; i > 0; i--) {
    const j = upTo(i, next);
    const value = order[i] as number;
    order[i] = order[j] as number;
    order[j] = value;
  }
  return order;
}
