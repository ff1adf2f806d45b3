import { type DType, sizeOf } from "#src/native/index.js";
import {
  derived,
  type Fill,
  gaussian,
  given,
  label,
  type OpCase,
  out,
  product,
  uniform,
} from "../harness/case.js";
import type { Tolerance } from "../harness/tolerance.js";
import type { Values } from "../harness/values.js";
import { logprobBackward as backward, logprobForward as forward } from "../reference/logprob.js";
import { dot } from "../reference/matrix.js";

/** First and last column, no label, and anywhere. */
const labels =
  (V: number): Fill =>
  (random, N) =>
    Array.from({ length: N }, (_, n) => [V - 1, -1, 0][n] ?? random.below(V));

// One column, less than a vector, no multiple of one, and more than the chunk of 4096 a kernel may cut at.
const SHAPES = product({ N: [0, 1, 5, 40], V: [1, 13, 259, 4096, 9001] }).filter(
  ({ N, V }) => N < 40 || V < 9001,
);

// The vocabulary of SmolLM2 by vectors of 4, with a ragged end, and by single columns.
const LARGE = [
  { N: 4, V: 49_152, aligned: true },
  { N: 4, V: 49_155, aligned: true },
  { N: 66_000, V: 3, aligned: false }, // more rows than the 65535 blocks that a grid is high
  { N: 6, V: 259 * 4, aligned: true },
] as const;

const forwardOf = (v: Values) => forward(v.matrix("logits"), v.array("labels"));

function forwardCase(N: number, V: number, name: string, logits: Fill): OpCase {
  return {
    op: "logprobForward",
    name,
    args: {
      logp: out("f32", [N]),
      lse: out("f32", [N]),
      logits: given("f32", [N, V], logits),
      labels: given("i32", [N], labels(V)),
    },
    reference: forwardOf,
    tolerance: { logp: { absolute: 1e-5 }, lse: { absolute: 1e-5 } }, // both are about 10: 5e-7 is one rounding
    bytes: 4 * N * V,
    flops: 3 * N * V,
  };
}

/** Logits that overflow, or say nothing at all. */
const EXTREMES: readonly { name: string; logits: Fill }[] = [
  { name: "constant", logits: (_, n) => new Float64Array(n).fill(3.25) },
  { name: "all 1e4", logits: (_, n) => new Float64Array(n).fill(1e4) },
  { name: "all -1e4", logits: (_, n) => new Float64Array(n).fill(-1e4) },
  {
    name: "±1e4",
    logits: (random, n) => Float64Array.from({ length: n }, () => (random.below(2) ? 1e4 : -1e4)),
  },
];

// At 1e4 the last place of f32 is 1e-3: lse cannot be better; logp comes before that rounding.
const EXTREME_TOLERANCE: Readonly<Record<string, Tolerance>> = {
  lse: { absolute: 1e-3 },
  logp: { relative: 1e-5 },
};

export const logprobForward: readonly OpCase[] = [
  ...SHAPES.map(({ N, V }) => forwardCase(N, V, label({ N, V }), gaussian(3))),
  ...LARGE.map(({ N, V, aligned }) => ({
    ...forwardCase(N, V, label({ N, V }), gaussian(3)),
    aligned,
  })),
  ...product({ extreme: EXTREMES, V: [13, 4099] }).map(({ extreme, V }) => ({
    ...forwardCase(6, V, `${label({ V })} ${extreme.name}`, extreme.logits),
    tolerance: EXTREME_TOLERANCE,
  })),
];

interface BackwardOptions {
  readonly dtype: DType;
  readonly over: boolean;
  readonly logits?: Fill;
}

function backwardCase(N: number, V: number, options: BackwardOptions): OpCase {
  const { dtype, over, logits = gaussian(3) } = options;
  return {
    op: "logprobBackward",
    name: `${label({ N, V, dtype })}${over ? " over logits" : ""}`,
    args: {
      dLogits: out(dtype, [N, V], over ? { over: "logits" } : {}),
      logits: given("f32", [N, V], logits),
      lse: derived("f32", [N]),
      labels: given("i32", [N], labels(V)),
      coefficient: uniform("f32", [N], -0.1, 0.1),
    },
    derive: (v) => ({ lse: forwardOf(v).lse }),
    reference: (v) => ({
      dLogits: backward(
        v.matrix("logits"),
        v.array("lse"),
        v.array("labels"),
        v.array("coefficient"),
      ),
    }),
    bytes: N * V * (4 + sizeOf(dtype)),
    flops: 3 * N * V,
  };
}

export const logprobBackward: readonly OpCase[] = [
  ...product({ shape: SHAPES, dtype: ["f32", "bf16"] as const, over: [false, true] }).map(
    ({ shape: { N, V }, dtype, over }) => backwardCase(N, V, { dtype, over }),
  ),
  ...product({ shape: LARGE, dtype: ["f32", "bf16"] as const, over: [false, true] }).map(
    ({ shape: { N, V, aligned }, dtype, over }) => ({
      ...backwardCase(N, V, { dtype, over }),
      aligned,
    }),
  ),
  ...product({ extreme: EXTREMES, dtype: ["f32", "bf16"] as const }).map(({ extreme, dtype }) => ({
    ...backwardCase(6, 4099, { dtype, over: true, logits: extreme.logits }),
    name: `${extreme.name} ${dtype}`,
  })),
  {
    ...backwardCase(5, 29, { dtype: "f32", over: false }),
    name: "gradient",
    gradient: {
      of: { dLogits: "logits" },
      loss: (v) => dot(forwardOf(v).logp, v.array("coefficient")),
    },
  },
];
