/**
 * Floating-point operations of a training step, a multiply-add counted as two.
 *
 *   linear layers   6 · T · Σ (inputs · outputs)        forward 2, gradient of the input 2, of the weight 2
 *   LM head         6 · N · C · V                       on the N scored rows only
 *   attention      14 · H · D · (visible keys)          forward 2 products (q·k, p·v), backward 5
 *                                                       (q·k again, dp, dv, dq, dk), 2 · D each
 *
 * T counts the prompt of a pair once. Norms, activations, softmax and the optimizer are left out, and so
 * are the rows that pad a micro-batch: this is work that has to be done, not work that was done.
 */

/** @typedef {import("./models.mjs").BenchModel} BenchModel */

/**
 * (query, key) combinations of a pair, per head: causal, and each response sees the prompt.
 * @param {import("./pairs.mjs").Pair} pair
 * @param {number} [window] keys that a row sees at most
 */
export function visibleKeys({ prompt, chosen, rejected }, window = Number.POSITIVE_INFINITY) {
  const triangle = (/** @type {number} */ n) => (n * (n + 1)) / 2;
  /** Rows [0, n) see 1 to n keys, or the last `window`. */
  const rows = (/** @type {number} */ n) =>
    n <= window ? triangle(n) : triangle(window) + (n - window) * window;
  const branch = (/** @type {number} */ n) => rows(prompt.length + n) - rows(prompt.length);
  return rows(prompt.length) + branch(chosen.length) + branch(rejected.length);
}

/**
 * Weights of a layer's matrices: qkv, o, gate and up, down.
 * @param {BenchModel} model
 */
export function layerMatrixSize(model) {
  const { hiddenSize: C, numHeads: H, numKvHeads: K, intermediateSize: F } = model;
  const D = C / H;
  return C * (H + 2 * K) * D + H * D * C + C * 2 * F + F * C;
}

/**
 * Parameters of the model.
 * @param {BenchModel} model
 */
export function parameterCount(model) {
  const { hiddenSize: C, numLayers: L, vocabSize: V } = model;
  return L * (layerMatrixSize(model) + 2 * C) + C + V * C * (model.tied ? 1 : 2);
}

/**
 * @param {BenchModel} model
 * @param {readonly import("./pairs.mjs").Pair[]} pairs of one step
 * @returns {{ linear: number, head: number, attention: number, total: number }} operations
 */
export function stepFlops(model, pairs) {
  const sum = (/** @type {(pair: import("./pairs.mjs").Pair) => number} */ of) =>
    pairs.reduce((total, pair) => total + of(pair), 0);
  const T = sum((p) => p.prompt.length + p.chosen.length + p.rejected.length);
  const N = sum((p) => p.chosen.length + p.rejected.length);
  const linear = 6 * T * model.numLayers * layerMatrixSize(model);
  const head = 6 * N * model.hiddenSize * model.vocabSize;
  const attention = 14 * model.numLayers * model.hiddenSize * sum(visibleKeys);
  return { linear, head, attention, total: linear + head + attention };
}
