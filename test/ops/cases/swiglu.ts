import { sizeOf } from "#src/native/index.js";
import { given, label, normal, type OpCase, out, product } from "../harness/case.js";
import { dot } from "../reference/matrix.js";
import { swigluBackward as backward, swigluForward as forward } from "../reference/swiglu.js";

const SHAPES = product({
  T: [0, 1, 33, 140],
  F: [1, 16, 17, 96, 331],
  dtype: ["f32", "bf16"] as const,
});

// A row is more than a block of 256 threads with 16 bytes each.
const ALIGNED = product({ T: [33], F: [96, 4104], dtype: ["f32", "bf16"] as const });

export const swigluForward: readonly OpCase[] = [...SHAPES, ...ALIGNED].map(
  ({ T, F, dtype }, i) => ({
    op: "swigluForward",
    name: `${label({ T, F, dtype })}${i < SHAPES.length ? "" : " aligned"}`,
    aligned: i >= SHAPES.length,
    args: { hidden: out(dtype, [T, F]), gateUp: normal(dtype, [T, 2 * F], { scale: 3 }) },
    reference: (v) => ({ hidden: forward(v.matrix("gateUp")) }),
    bytes: 3 * T * F * sizeOf(dtype),
    flops: 4 * T * F,
  }),
);

const BACKWARD_SHAPES = [
  ...SHAPES.map((shape) => ({ ...shape, aligned: false })),
  ...ALIGNED.map((shape) => ({ ...shape, aligned: true })),
];

export const swigluBackward: readonly OpCase[] = product({
  shape: BACKWARD_SHAPES,
  place: ["apart", "in place", "strided"],
})
  .filter(
    ({ shape: { T, F, aligned }, place }) =>
      place === "apart" || aligned || (T === 33 && F === 331),
  )
  .map(({ shape: { T, F, dtype, aligned }, place }) => {
    const strided = { rowGap: place === "strided" ? (aligned ? 8 : 5) : 0 };
    return {
      op: "swigluBackward",
      name: `${label({ T, F, dtype })} ${place}${aligned ? " aligned" : ""}`,
      aligned,
      args: {
        dGateUp: out(dtype, [T, 2 * F], place === "in place" ? { over: "gateUp" } : strided),
        hidden: out(dtype, [T, F], place === "in place" ? { over: "dHidden" } : strided),
        dHidden: normal(dtype, [T, F], strided),
        gateUp: normal(dtype, [T, 2 * F], { ...strided, scale: 3 }),
      },
      reference: (v) => ({
        dGateUp: backward(v.array("dHidden"), v.matrix("gateUp")),
        hidden: forward(v.matrix("gateUp")),
      }),
      ...(dtype === "f32" && T === 33 && F === 17
        ? {
            gradient: {
              of: { dGateUp: "gateUp" },
              loss: (v) => dot(forward(v.matrix("gateUp")), v.array("dHidden")),
            },
          }
        : {}),
      bytes: 6 * T * F * sizeOf(dtype),
      flops: 10 * T * F,
    };
  });

// Gates far out: e^100 overflows f32, and the result is 0 or gate·up, not NaN.
const FAR = [-1e4, -100, -89, -88, 0, 88, 100, 1e4];

export const swigluFar: readonly OpCase[] = (["f32", "bf16"] as const).map((dtype) => ({
  op: "swigluForward",
  name: `gates up to 1e4 ${dtype}`,
  args: {
    hidden: out(dtype, [FAR.length, 1]),
    gateUp: given(
      dtype,
      [FAR.length, 2],
      FAR.flatMap((gate) => [gate, 1.5]),
    ),
  },
  reference: (v) => ({ hidden: forward(v.matrix("gateUp")) }),
  bytes: 0,
  flops: 0,
}));
