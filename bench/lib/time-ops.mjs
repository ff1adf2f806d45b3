/** Times one op on tensors of its own, and measures the roofs it is held against. */
import { bandwidth, fillRandom, gemmPeak, timeOp } from "./roof.mjs";

/** @typedef {import("../../dist/native/index.js").Device} Device */
/** @typedef {import("../../dist/native/index.js").Tensor} Tensor */
/** @typedef {import("./op-cases.mjs").OpBench} OpBench */

const ELEMENT = { f32: 4, bf16: 2 };

/**
 * Seconds of each call.
 * @param {Device} device @param {OpBench} bench
 * @param {Parameters<typeof timeOp>[2]} [limits]
 */
export async function timeBench(device, bench, limits) {
  const specs = Object.entries(bench.tensors).map(([name, spec]) => {
    if (spec instanceof Int32Array) {
      return { name, dtype: /** @type {const} */ ("i32"), shape: [spec.length], ints: spec };
    }
    if ("ints" in spec) {
      const shape = [spec.ints.length / spec.columns, spec.columns];
      return { name, dtype: /** @type {const} */ ("i32"), shape, ints: spec.ints };
    }
    return { name, ...spec, ints: undefined };
  });
  const bytes = specs.reduce((sum, { dtype, shape }) => {
    const elements = shape.reduce((product, extent) => product * extent, 1);
    return sum + 64 + elements * (dtype === "i32" ? 4 : ELEMENT[dtype]);
  }, 0);
  const arena = device.arena(bytes, bench.op);
  const stream = device.stream();
  try {
    /** @type {Record<string, Tensor>} */
    const tensors = {};
    for (const spec of specs) {
      const tensor = arena.tensor(spec.dtype, spec.shape);
      tensors[spec.name] = tensor;
      if (spec.ints) stream.write(tensor, spec.ints);
      else if (spec.fill === "random") fillRandom(stream, tensor);
    }
    bench.prepare?.(stream, tensors);
    return await timeOp(stream, () => bench.run(stream, tensors), limits);
  } finally {
    stream.dispose();
    arena.dispose();
  }
}

/**
 * Roofs that only rise: measured before and after the ops, because a moment's disturbance must not lower
 * what the ops are held against.
 * @param {Device} device
 * @param {"f32" | "bf16"} dtype of the products
 * @param {readonly number[]} footprints bytes that the ops move
 * @param {number} [largest] working set that is surely in memory: more than any cache
 */
export function createRoofs(device, dtype, footprints, largest = 2 ** 30) {
  /** @type {Map<number, number>} bytes/s by working set, powers of two */
  const rates = new Map([
    [workingSet(largest), 0],
    ...footprints.map((bytes) => /** @type {const} */ ([workingSet(bytes), 0])),
  ]);
  let flops = 0;
  return {
    async measure() {
      flops = Math.max(flops, await gemmPeak(device, dtype));
      for (const [size, rate] of rates) {
        rates.set(size, Math.max(rate, await bandwidth(device, size)));
      }
    },
    /** A product that ran faster than the large squares did is the better roof. @param {number} rate */
    raiseFlops(rate) {
      flops = Math.max(flops, rate);
    },
    /** GEMM peak in FLOP/s. */
    get flops() {
      return flops;
    },
    /**
     * Bandwidth in bytes/s for a working set of about this size; a smaller one is at least as fast as a
     * larger one.
     * @param {number} bytes
     */
    bytesPerSecond(bytes) {
      const size = workingSet(bytes);
      return Math.max(...[...rates].filter(([other]) => other >= size).map(([, rate]) => rate));
    },
  };
}

/** The next power of two, 64 KiB at least and 1 GiB at most. @param {number} bytes */
function workingSet(bytes) {
  return 2 ** Math.min(Math.max(Math.ceil(Math.log2(bytes)), 16), 30);
}
