/** What the machine can do, measured with the addon's own ops: GEMM rates and memory bandwidth. */
import { performance } from "node:perf_hooks";

/** @typedef {import("./record-matmuls.mjs").Matmul} Matmul */
/** @typedef {import("../../dist/native/index.js").Device} Device */
/** @typedef {import("../../dist/native/index.js").Stream} Stream */
/** @typedef {import("../../dist/native/index.js").Tensor} Tensor */
/** @typedef {"f32" | "bf16"} DType */

const BYTES = { f32: 4, bf16: 2 };

/**
 * Seconds that an op takes on the stream, waiting and queueing left out: the first call warms up, then
 * calls are repeated until there are `least` of them and `budget` seconds are over.
 * @param {Stream} stream
 * @param {() => void} enqueue one call of one op
 * @param {{ least?: number, budget?: number }} [limits]
 * @returns {Promise<number[]>}
 */
export async function timeOp(stream, enqueue, { least = 5, budget = 0.2 } = {}) {
  enqueue();
  await stream.done();
  stream.profiling(true); // a GPU has times only when asked for them
  stream.takeProfile();
  /** @type {number[]} */
  const seconds = [];
  const began = performance.now();
  while (seconds.length < least || performance.now() - began < 1e3 * budget) {
    enqueue();
    await stream.done();
    seconds.push(stream.takeProfile().reduce((sum, op) => sum + op.seconds, 0));
    if (seconds.length >= 1000) break;
  }
  stream.profiling(false);
  return seconds;
}

/** Random elements that a tensor's contents repeat, so that gigabytes are filled at memcpy's speed. */
const PATTERN = (1 << 20) + 13;

/**
 * Small pseudo-random numbers everywhere: zeros would multiply faster than data does.
 * @param {Stream} stream @param {Tensor} tensor
 */
export function fillRandom(stream, tensor) {
  let state = 0x9e3779b9;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  };
  const length = Math.min(tensor.size, PATTERN);
  const whole =
    tensor.dtype === "f32" ? new Float32Array(tensor.size) : new Uint16Array(tensor.size);
  for (let i = 0; i < length; i++) {
    const r = next();
    // bf16: sign, an exponent of -1 to -4, seven bits of fraction: ±0.0625 to ±1.
    whole[i] =
      tensor.dtype === "f32"
        ? r / 2 ** 31
        : ((r & 1) << 15) | ((0x7b + ((r >>> 1) & 3)) << 7) | ((r >>> 8) & 0x7f);
  }
  for (let done = length; done < whole.length; done *= 2) {
    whole.copyWithin(done, 0, Math.min(done, whole.length - done));
  }
  stream.write(tensor, whole);
}

/**
 * Best time of each product on its own, dense operands, in seconds per call. The fastest of several
 * calls: the roof of what oneDNN does for this shape here and now.
 * @param {Device} device
 * @param {readonly Matmul[]} list
 * @param {{ least?: number, budget?: number }} [limits]
 * @returns {Promise<number[]>} in the order of the list
 */
export async function matmulRoof(device, list, limits = { least: 5, budget: 0.1 }) {
  /** @type {number[]} */
  const best = [];
  for (const { op, form, m, n, k, input, output } of list) {
    const [aShape, bShape] = operandShapes(form, m, n, k);
    const bytes = (m * k + k * n) * BYTES[input] + m * n * BYTES[output] + 256;
    const arena = device.arena(bytes, "matmul roof");
    const stream = device.stream();
    try {
      const a = arena.tensor(input, aShape);
      const b = arena.tensor(input, bShape);
      const c = arena.tensor(output, [m, n]);
      fillRandom(stream, a);
      fillRandom(stream, b);
      const seconds = await timeOp(stream, () => stream[op](c, a, b, form), limits);
      best.push(Math.min(...seconds));
    } finally {
      stream.dispose();
      arena.dispose();
    }
  }
  return best;
}

/**
 * @param {Matmul["form"]} form @param {number} m @param {number} n @param {number} k
 * @returns {[number[], number[]]}
 */
function operandShapes(form, m, n, k) {
  if (form === "nn") return [[m, k], [k, n]]; // biome-ignore format: two shapes
  if (form === "nt") return [[m, k], [n, k]]; // biome-ignore format: two shapes
  return [[k, m], [k, n]]; // biome-ignore format: two shapes
}

/**
 * GEMM peak in FLOP/s: the best of some large and square products.
 * @param {Device} device @param {DType} dtype
 */
export async function gemmPeak(device, dtype) {
  const large = device.name === "cuda" ? [4096, 8192] : undefined;
  const sizes = large ?? (dtype === "bf16" ? [1024, 2048, 3072] : [1024, 1536]);
  const list = sizes.map((size) => ({
    ...{ op: /** @type {const} */ ("matmul"), form: /** @type {const} */ ("nn"), count: 1 },
    ...{ m: size, n: size, k: size, input: dtype, output: dtype },
  }));
  const seconds = await matmulRoof(device, list, { least: 5, budget: 0.5 });
  return Math.max(...list.map(({ m, n, k }, i) => (2 * m * n * k) / (seconds[i] ?? Infinity)));
}

/**
 * Memory bandwidth in bytes/s for a working set of `bytes`: the better of reading (sum of squares) and
 * writing (fill). A set that fits a cache is measured in that cache, like the op it is held against.
 * @param {Device} device @param {number} bytes
 */
export async function bandwidth(device, bytes) {
  const elements = Math.max(1024, Math.ceil(bytes / 4));
  const arena = device.arena(4 * elements + 1024, "bandwidth");
  const stream = device.stream();
  try {
    const x = arena.tensor("f32", [elements]);
    const partials = arena.tensor("f32", [64]);
    stream.fill(x, 0.5);
    const read = await timeOp(stream, () => stream.sumSquares(partials, x));
    const write = await timeOp(stream, () => stream.fill(x, 0.5));
    return (4 * elements) / Math.min(...read, ...write);
  } finally {
    stream.dispose();
    arena.dispose();
  }
}
