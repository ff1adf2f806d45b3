import { type Fill, given, label, type OpCase, out, product } from "../harness/case.js";
import type { Values } from "../harness/values.js";
import { hingeLoss as hinge, pairLoss, sigmoidLoss, simperSftLoss } from "../reference/losses.js";

/** Lengths of chosen, rejected, chosen, rejected …, and where their log-probs lie. */
interface Layout {
  readonly lengths: readonly number[];
  readonly fill: Fill;
}

/** Log-probs of tokens: negative, a few units. */
const usual: Fill = (random, n) => Float64Array.from({ length: n }, () => -3 * random.uniform());

/** Margins of 1e4 both ways, where e^x overflows, and one of 0. */
const extreme: Fill = () => [-1, -1e4, -1e4, -1, -2, -2];

const LAYOUTS: readonly Layout[] = [
  // One row each, a response without rows, more than a block of threads, and nothing at all.
  ...[[1, 1], [7, 3, 0, 12], [0, 0], [130, 77, 1, 300, 16, 17], []].map((lengths) => ({
    lengths,
    fill: usual,
  })),
  { lengths: [1, 1, 1, 1, 1, 1], fill: extreme },
];

/** Weights of an SFT term as training has them: on the chosen responses, each its own; or none. */
const tokenWeights: Readonly<Record<string, Fill>> = {
  "with SFT": (random, n) =>
    Float64Array.from({ length: n }, (_, r) => (r % 2 === 0 ? 0.01 + 0.1 * random.uniform() : 0)),
  "without SFT": (_, n) => new Float64Array(n),
};

type Op = "simperSftLoss" | "sigmoidLoss" | "hingeLoss";
type Scalars = Readonly<Record<string, number>>;

function cases(
  op: Op,
  scalars: readonly Scalars[],
  rule: (v: Values) => Parameters<typeof pairLoss>[2],
): OpCase[] {
  const axes = { layout: LAYOUTS, over: [false, true], sft: Object.keys(tokenWeights) };
  return product({ ...axes, scalars }).map(({ layout, over, sft, scalars: extra }) => {
    const { lengths, fill } = layout;
    const R = lengths.length;
    const N = lengths.reduce((a, b) => a + b, 0);
    let begin = 0;
    const responses = lengths.flatMap((length, r) => {
      begin += length;
      return [begin - length, begin, r % 2];
    });
    const of = (v: Values) => {
      const tables = { responses: v.array("responses"), tokenWeight: v.array("tokenWeight") };
      return pairLoss(v.array("logp"), tables, rule(v), v.scalar("scale"));
    };
    const where = `lengths ${lengths.join(", ") || "none"}${fill === extreme ? ", extreme" : ""}`;
    return {
      op,
      name: [where, sft, label(extra), ...(over ? ["coefficient over logp"] : [])]
        .filter((part) => part !== "")
        .join(", "),
      args: {
        mean: out("f32", [R]),
        loss: out("f32", [R]),
        coefficient: out("f32", [N], over ? { over: "logp" } : {}),
        logp: given("f32", [N], fill),
        responses: given("i32", [R, 3], responses),
        tokenWeight: given("f32", [R], tokenWeights[sft]!),
        scale: 0.125,
        ...extra,
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

export const simperSft = cases("simperSftLoss", [{}], () => simperSftLoss);

export const sigmoid = cases(
  "sigmoidLoss",
  // The reference recipes' largest beta, label smoothing, and neither margin nor smoothing.
  [
    { beta: 2.5, gammaBetaRatio: 0.55, labelSmoothing: 0 },
    { beta: 2, gammaBetaRatio: 0.25, labelSmoothing: 0.1 },
    { beta: 1, gammaBetaRatio: 0, labelSmoothing: 0.5 },
  ],
  (v) => sigmoidLoss(v.scalar("beta"), v.scalar("gammaBetaRatio"), v.scalar("labelSmoothing")),
);

export const hingeLoss = cases(
  "hingeLoss",
  [
    { beta: 2.5, gammaBetaRatio: 0.55 },
    { beta: 0.5, gammaBetaRatio: 0 },
  ],
  (v) => hinge(v.scalar("beta"), v.scalar("gammaBetaRatio")),
);
