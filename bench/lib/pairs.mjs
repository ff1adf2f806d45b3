/** Synthetic preference pairs: random tokens of lognormal lengths, seeded. */
import { Random } from "../../scripts/quickstart/random.mjs";
import { special } from "./models.mjs";

/** @typedef {import("./models.mjs").BenchModel} BenchModel */
/** @typedef {import("./models.mjs").Lengths} Lengths */
/** @typedef {{ prompt: number[], chosen: number[], rejected: number[] }} Pair token ids */

/** σ of the lengths' logarithm. */
export const SIGMA = 0.7;

/**
 * A length: exp(μ + σz) with μ = ln(mean) − σ²/2, which has the given mean, rounded and cut.
 * @param {Random} random
 * @param {Lengths} lengths
 */
export function drawLength(random, { mean, least, most }) {
  const length = Math.exp(Math.log(mean) - SIGMA ** 2 / 2 + SIGMA * random.normal());
  return Math.min(Math.max(Math.round(length), least), most);
}

/**
 * BOS opens the prompt, EOS ends each response; equal seeds give equal pairs on every machine.
 * @param {BenchModel} model
 * @param {number} count
 * @param {number} seed
 * @returns {Pair[]}
 */
export function makePairs(model, count, seed) {
  const random = new Random(seed);
  const ids = (/** @type {number} */ length) =>
    Array.from({ length }, () => random.integer(special.firstFree, model.vocabSize - 1));
  const response = () => [...ids(drawLength(random, model.response) - 1), special.eos];
  return Array.from({ length: count }, () => ({
    prompt: [special.bos, ...ids(drawLength(random, model.prompt) - 1)],
    chosen: response(),
    rejected: response(),
  }));
}

/**
 * Tokens of pairs: `real` counts the prompt of a pair with both responses, as a trainer without a
 * shared prefix computes it; `computed` counts it once; `scored` are those of the responses.
 * @param {readonly Pair[]} pairs
 */
export function countTokens(pairs) {
  const sum = (/** @type {(pair: Pair) => number} */ of) =>
    pairs.reduce((total, pair) => total + of(pair), 0);
  return {
    pairs: pairs.length,
    real: sum((p) => 2 * p.prompt.length + p.chosen.length + p.rejected.length),
    computed: sum((p) => p.prompt.length + p.chosen.length + p.rejected.length),
    scored: sum((p) => p.chosen.length + p.rejected.length),
  };
}

/**
 * A row for the trainer, tokenized: only the response is scored.
 * @param {Pair} pair
 */
export function tokenizedRow({ prompt, chosen, rejected }) {
  const labels = (/** @type {number[]} */ response) => [...prompt.map(() => -100), ...response];
  return {
    chosen_input_ids: [...prompt, ...chosen],
    chosen_labels: labels(chosen),
    rejected_input_ids: [...prompt, ...rejected],
    rejected_labels: labels(rejected),
  };
}
