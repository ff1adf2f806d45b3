import { given, label, normal, type OpCase, out, product, uniform } from "../harness/case.js";

/** Sums of x² over blocks of ceil(n / B): the last blocks may be short or empty. */
function blockSquares(x: Float64Array, B: number): Float64Array {
  const block = Math.ceil(x.length / B);
  return Float64Array.from({ length: B }, (_, b) =>
    x.subarray(b * block, (b + 1) * block).reduce((sum, value) => sum + value * value, 0),
  );
}

export const sumSquares: readonly OpCase[] = [
  ...product({ n: [0, 1, 17, 1000, 70_001], B: [1, 2, 7, 64] }),
  { n: 1_000_003, B: 63 },
].map(({ n, B }) => ({
  op: "sumSquares",
  name: label({ n, B }),
  args: { partials: out("f32", [B]), x: normal("f32", [n]) },
  reference: (v) => ({ partials: blockSquares(v.array("x"), B) }),
  tolerance: { partials: { relative: 2e-7 } }, // summed in f64: one rounding to f32
  bytes: 4 * n,
  flops: 2 * n,
}));

function clipCase(name: string, partials: number[], maxNorm: number): OpCase {
  return {
    op: "clipFactor",
    name,
    args: {
      out: out("f32", [2]),
      partials: given("f32", [partials.length], partials),
      maxNorm,
    },
    reference: (v) => {
      const norm = Math.sqrt(v.array("partials").reduce((a, b) => a + b, 0));
      return { out: [norm, maxNorm === 0 ? 1 : Math.min(1, maxNorm / (norm + 1e-6))] };
    },
    tolerance: { out: { relative: 2e-7 } },
    bytes: 4 * partials.length,
    flops: partials.length,
  };
}

export const clipFactor: readonly OpCase[] = [
  clipCase("clips", [9, 7], 1),
  clipCase("does not clip", [0.01, 0.02], 1),
  clipCase("max_norm 0 never clips", [100, 100], 0),
  clipCase("a zero gradient", [0, 0], 1),
  clipCase("no block", [], 1),
  {
    ...clipCase("many blocks", [], 0.5),
    args: { out: out("f32", [2]), partials: uniform("f32", [1000], 0, 3), maxNorm: 0.5 },
  },
];
