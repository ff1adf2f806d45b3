import { random32 } from "../data/order.js";

/** Chooses the next token from its logits. */
export type Sampler = (logits: Float32Array, row: number) => number;

/** The token with the highest logit; the lowest id among equals. */
export const greedy: Sampler = (logits) => {
  let best = 0;
  for (let v = 1; v < logits.length; v++) if (logits[v]! > logits[best]!) best = v;
  return best;
};

/**
 * Draws from softmax(logits / temperature). Every row has its own random sequence, so that its tokens do not
 * depend on the rows it shares a batch with.
 */
export function temperatureSampler(temperature: number, seed: number): Sampler {
  const streams = new Map<number, () => number>();
  return (logits, row) => {
    let next = streams.get(row);
    if (!next) {
      next = random32(seed, row);
      streams.set(row, next);
    }
    const highest = logits[greedy(logits, row)]!;
    let total = 0;
    for (const logit of logits) total += Math.exp((logit - highest) / temperature);
    let left = (next() / 2 ** 32) * total;
    for (let v = 0; v < logits.length; v++) {
      left -= Math.exp((logits[v]! - highest) / temperature);
      if (left < 0) return v;
    }
    return logits.length - 1;
  };
}
