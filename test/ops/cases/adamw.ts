import { type DType, sizeOf } from "#src/native/index.js";
import {
  given,
  label,
  normal,
  type OpCase,
  out,
  product,
  uniform,
  update,
} from "../harness/case.js";
import type { Values } from "../harness/values.js";
import { type AdamState, adamw as reference } from "../reference/adamw.js";

const SCALARS = { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1 };

function updated(v: Values, step: number): AdamState {
  const state = {
    master: v.array("master").slice(),
    m: v.array("m").slice(),
    v: v.array("v").slice(),
  };
  reference(state, v.array("grad"), v.array("clip")[1]!, { ...SCALARS, step });
  return state;
}

const positive = (n: number) => ({ fill: uniform("f32", [n], 0, 2).fill! });

function adamCase(n: number, dtype: DType, over: boolean, step: number): OpCase {
  return {
    op: "adamw",
    name: `${label({ n, dtype, step })}${over ? " weight is master" : ""}`,
    args: {
      weight: out(dtype, [n], over ? { over: "master" } : {}),
      master: update("f32", [n]),
      m: update("f32", [n]),
      v: update("f32", [n], positive(n)),
      grad: normal("f32", [n]),
      clip: given("f32", [2], [2.5, 0.4]),
      ...SCALARS,
      step,
    },
    reference: (v) => {
      const state = updated(v, step);
      return { ...state, weight: state.master };
    },
    tolerance: { weight: { relative: dtype === "f32" ? 1e-6 : 4e-3 }, master: { relative: 1e-6 } },
    bytes: n * (28 + sizeOf(dtype)),
    flops: 14 * n,
  };
}

export const adamw: readonly OpCase[] = [
  ...product({ n: [0, 1, 15, 17, 20_011], dtype: ["f32", "bf16"] as const, step: [1, 7] }).map(
    ({ n, dtype, step }) => adamCase(n, dtype, false, step),
  ),
  ...[1, 20_011].map((n) => adamCase(n, "f32", true, 3)),
  // Vectors of 4 with an element or three behind the last.
  ...[
    ...product({ n: [7, 4097], dtype: ["f32", "bf16"] as const }),
    { n: 1_000_003, dtype: "bf16" } as const,
  ].map(({ n, dtype }) => ({ ...adamCase(n, dtype, false, 5), aligned: true })),
];

// A gradient norm that is not finite changes nothing: weight keeps its values, too.
export const adamwSkipped: readonly OpCase[] = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
].map((norm) => {
  const plain = adamCase(37, "bf16", false, 2);
  return {
    ...plain,
    name: `skipped: norm ${norm}`,
    args: {
      ...plain.args,
      weight: update("bf16", [37]),
      grad: given("f32", [37], new Float64Array(37).fill(Number.NaN)),
      clip: given("f32", [2], [norm, 1]),
    },
    reference: (v) => ({
      weight: v.array("weight"),
      master: v.array("master"),
      m: v.array("m"),
      v: v.array("v"),
    }),
    tolerance: { weight: "exact", master: "exact", m: "exact", v: "exact" },
  };
});
