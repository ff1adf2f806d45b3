import { sizeOf } from "#src/native/index.js";
import {
  type Gradient,
  given,
  indices,
  label,
  type OpCase,
  product,
  update,
} from "../harness/case.js";
import { dot } from "../reference/matrix.js";
import { rope } from "../reference/rope.js";

const POSITIONS = 50;

/** Row p = {cos, sin} of p·10000^(−2i/D), as the trainer builds it. */
function angleTable(D: number): Float64Array {
  const table = new Float64Array(POSITIONS * D);
  for (let p = 0; p < POSITIONS; p++) {
    for (let i = 0; i < D / 2; i++) {
      const angle = p * 10_000 ** ((-2 * i) / D);
      table[p * D + i] = Math.cos(angle);
      table[p * D + D / 2 + i] = Math.sin(angle);
    }
  }
  return table;
}

// D/2 = 1, 12 and 48 are no vector; `rest` columns behind the rotated heads are values, and stay.
const SHAPES = product({
  T: [0, 1, 33, 140],
  heads: [1, 5],
  D: [2, 16, 24, 64, 96, 128],
  rest: [0, 1],
  dtype: ["f32", "bf16"] as const,
}).filter(({ T, rest }) => T < 140 || rest === 1);

// More pairs in a row than a block of 256 threads turns with 16 bytes each; the whole rows are aligned.
const ALIGNED = product({
  T: [3],
  heads: [40],
  D: [64, 128],
  rest: [1],
  dtype: ["f32", "bf16"] as const,
});

export const ropeForward: readonly OpCase[] = [...SHAPES, ...ALIGNED].map(
  ({ T, heads, D, rest, dtype }) => ({
    op: "ropeForward",
    name: label({ T, heads, D, rest, dtype }),
    aligned: heads === 40,
    args: {
      x: update(dtype, [T, (heads + rest) * D]),
      positions: indices([T], POSITIONS),
      table: given("f32", [POSITIONS, D], angleTable(D)),
      heads,
    },
    reference: (v) => ({
      x: rope(v.matrix("x"), v.array("positions"), v.matrix("table"), heads, 1),
    }),
    bytes: 2 * T * heads * D * sizeOf(dtype),
    flops: 3 * T * heads * D,
  }),
);

/** The rotation is linear, so its gradient is the same everywhere: also at zero. */
const gradient: Gradient = {
  of: { dx: "x" },
  inPlace: true,
  start: (v) => ({ x: new Float64Array(v.array("dx").length) }),
  loss: (v) => {
    const x = { ...v.matrix("dx"), data: v.array("x") };
    const y = rope(x, v.array("positions"), v.matrix("table"), v.scalar("heads"), 1);
    return dot(y, v.array("dx"));
  },
};

export const ropeBackward: readonly OpCase[] = [...SHAPES, ...ALIGNED].map(
  ({ T, heads, D, rest, dtype }) => ({
    op: "ropeBackward",
    name: label({ T, heads, D, rest, dtype }),
    aligned: heads === 40,
    args: {
      dx: update(dtype, [T, (heads + rest) * D]),
      positions: indices([T], POSITIONS),
      table: given("f32", [POSITIONS, D], angleTable(D)),
      heads,
    },
    reference: (v) => ({
      dx: rope(v.matrix("dx"), v.array("positions"), v.matrix("table"), heads, -1),
    }),
    ...(T === 33 && D === 16 && heads === 5 && rest === 1 && dtype === "f32" ? { gradient } : {}),
    bytes: 2 * T * heads * D * sizeOf(dtype),
    flops: 3 * T * heads * D,
  }),
);
