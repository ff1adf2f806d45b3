/** Which matrix products a run makes: form, sizes and types of each, counted. */

/**
 * @typedef {object} Matmul
 * @property {"matmul" | "matmulAdd"} op
 * @property {"nn" | "nt" | "tn"} form
 * @property {number} m
 * @property {number} n
 * @property {number} k
 * @property {"f32" | "bf16"} input
 * @property {"f32" | "bf16"} output
 * @property {number} count calls
 *
 * @typedef {import("../../dist/native/index.js").Stream} Stream
 * @typedef {import("../../dist/native/index.js").Tensor} Tensor
 */

/**
 * Listens to the products that are enqueued on a stream.
 * @param {Stream} stream
 * @returns {() => Matmul[]} ends it, and gives what was heard
 */
export function recordMatmuls(stream) {
  /** @type {Map<string, Matmul>} */
  const heard = new Map();
  const ops = /** @type {const} */ (["matmul", "matmulAdd"]);
  for (const op of ops) {
    const run = stream[op];
    /** @type {typeof run} */
    const listen = (c, a, b, form) => {
      const [m = 0, n = 0] = c.shape;
      const k = (form === "tn" ? a.shape[0] : a.shape[1]) ?? 0;
      const key = [op, form, m, n, k, a.dtype, c.dtype].join();
      const input = /** @type {"f32" | "bf16"} */ (a.dtype);
      const output = /** @type {"f32" | "bf16"} */ (c.dtype);
      const known = heard.get(key);
      if (known) known.count++;
      else heard.set(key, { op, form, m, n, k, input, output, count: 1 });
      return run.call(stream, c, a, b, form);
    };
    Object.defineProperty(stream, op, { value: listen, configurable: true });
  }
  return () => {
    for (const op of ops) Reflect.deleteProperty(stream, op);
    return [...heard.values()];
  };
}

/** Operations of a list of products. @param {readonly Matmul[]} list */
export function matmulFlops(list) {
  return list.reduce((sum, { m, n, k, count }) => sum + 2 * m * n * k * count, 0);
}
