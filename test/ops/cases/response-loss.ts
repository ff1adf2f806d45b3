import type { Ops } from "#src/native/index.js";
import { type Fill, given, type OpCase, out, product } from "../harness/case.js";
import type { Values } from "../harness/values.js";
import type { ResponseLoss } from "../reference/losses.js";

// Lengths of chosen, rejected, chosen, rejected …: one row, no row, and more than a vector.
const LAYOUTS = [[1, 1], [7, 3, 0, 12], [0, 0], [130, 77, 1, 300, 16, 17], []];

/** Log-probs of tokens: negative, a few units. */
const logps: Fill = (random, n) => Float64Array.from({ length: n }, () => -3 * random.uniform());

type Loss = (logp: Float64Array, responses: Float64Array, scale: number) => ResponseLoss;

/**
 * Cases of an op that turns log-probs into losses: simper_loss and sft_loss take the same arguments.
 * The coefficient is a gradient, so finite differences of the summed loss check it.
 */
export function responseLossCases(op: keyof Ops, reference: Loss): OpCase[] {
  return product({ lengths: LAYOUTS, over: [false, true] }).map(({ lengths, over }) => {
    const N = lengths.reduce((a, b) => a + b, 0);
    let begin = 0;
    const responses = lengths.flatMap((length, r) => {
      begin += length;
      return [begin - length, begin, r % 2];
    });
    const of = (v: Values) => reference(v.array("logp"), v.array("responses"), v.scalar("scale"));
    return {
      op,
      name: `lengths ${lengths.join(", ") || "none"}${over ? ", coefficient over logp" : ""}`,
      args: {
        mean: out("f32", [lengths.length]),
        loss: out("f32", [lengths.length]),
        coefficient: out("f32", [N], over ? { over: "logp" } : {}),
        logp: given("f32", [N], logps),
        responses: given("i32", [lengths.length, 3], responses),
        scale: 0.125,
      },
      reference: (v) => ({ ...of(v) }),
      gradient: {
        of: { coefficient: "logp" },
        loss: (v) => of(v).loss.reduce((sum, value) => sum + value, 0),
      },
      bytes: 8 * N,
      flops: N,
    };
  });
}
