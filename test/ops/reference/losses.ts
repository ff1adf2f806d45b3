/** What a loss op gives for a group of responses. */
export interface ResponseLoss {
  readonly mean: Float64Array;
  readonly loss: Float64Array;
  /** d loss / d logp of every row. */
  readonly coefficient: Float64Array;
}

/** Loss of a response from its log-probs; each row's coefficient is its derivative. */
type Rule = (logps: Float64Array, rejected: boolean) => { loss: number; coefficient: number };

function responseLoss(logp: Float64Array, responses: Float64Array, rule: Rule): ResponseLoss {
  const R = responses.length / 3;
  const result = {
    mean: new Float64Array(R),
    loss: new Float64Array(R),
    coefficient: new Float64Array(logp.length),
  };
  for (let r = 0; r < R; r++) {
    const [begin, end, side] = responses.subarray(3 * r, 3 * r + 3) as unknown as number[];
    const rows = logp.subarray(begin, end);
    if (rows.length === 0) continue;
    const { loss, coefficient } = rule(rows, side === 1);
    result.mean[r] = meanOf(rows);
    result.loss[r] = loss;
    result.coefficient.fill(coefficient, begin, end);
  }
  return result;
}

/** ∓scale·exp(mean logp): − for the chosen, + for the rejected response. [Xiao et al. 2025, eq. 4] */
export function simperLoss(
  logp: Float64Array,
  responses: Float64Array,
  scale: number,
): ResponseLoss {
  return responseLoss(logp, responses, (rows, rejected) => {
    const loss = (rejected ? scale : -scale) * Math.exp(meanOf(rows));
    return { loss, coefficient: loss / rows.length };
  });
}

/** −scale·sum of logp. */
export function sftLoss(logp: Float64Array, responses: Float64Array, scale: number): ResponseLoss {
  return responseLoss(logp, responses, (rows) => ({
    loss: -scale * rows.length * meanOf(rows),
    coefficient: -scale,
  }));
}

/** Loss of a pair from its two means, by response, and its derivatives with respect to them. */
type PairRule = (
  chosen: number,
  rejected: number,
  empty: readonly [boolean, boolean],
) => { readonly losses: readonly [number, number]; readonly slopes: readonly [number, number] };

/** Losses of whole pairs: scale · the rule's, − token weight · sum of logp. */
export function pairLoss(
  logp: Float64Array,
  tables: { readonly responses: Float64Array; readonly tokenWeight: Float64Array },
  rule: PairRule,
  scale: number,
): ResponseLoss {
  const { responses, tokenWeight } = tables;
  const R = responses.length / 3;
  const result = {
    mean: new Float64Array(R),
    loss: new Float64Array(R),
    coefficient: new Float64Array(logp.length),
  };
  const rows = Array.from({ length: R }, (_, r) =>
    logp.subarray(responses[3 * r]!, responses[3 * r + 1]!),
  );
  for (const [r, own] of rows.entries()) result.mean[r] = own.length > 0 ? meanOf(own) : 0;
  for (let r = 0; r < R; r += 2) {
    const empty = [rows[r]!.length === 0, rows[r + 1]!.length === 0] as const;
    const { losses, slopes } = rule(result.mean[r]!, result.mean[r + 1]!, empty);
    for (const side of [0, 1] as const) {
      const own = rows[r + side]!;
      const weight = tokenWeight[r + side]!;
      const total = own.reduce((sum, value) => sum + value, 0);
      result.loss[r + side] = scale * losses[side] - weight * total;
      const begin = responses[3 * (r + side)]!;
      const each = (scale * slopes[side]) / own.length - weight;
      result.coefficient.fill(each, begin, begin + own.length);
    }
  }
  return result;
}

/** ∓exp(mean), nothing for an empty response. */
export const simperSftLoss: PairRule = (chosen, rejected, [noChosen, noRejected]) => {
  const losses = [noChosen ? 0 : -Math.exp(chosen), noRejected ? 0 : Math.exp(rejected)] as const;
  return { losses, slopes: losses };
};

/** −(1 − s)·log σ(β·z) − s·log σ(−β·z), written with softplus(x) = log(1 + e^x). [Meng et al. 2024, eq. 6] */
export const sigmoidLoss =
  (beta: number, gammaBetaRatio: number, smoothing: number): PairRule =>
  (chosen, rejected) => {
    const x = beta * (chosen - rejected - gammaBetaRatio);
    const value = (1 - smoothing) * softplus(-x) + smoothing * softplus(x);
    const slope = beta * (Math.tanh(x / 2) / 2 + 0.5 - (1 - smoothing));
    return { losses: [value, 0], slopes: [slope, -slope] };
  };

/** max(0, 1 − β·z). */
export const hingeLoss =
  (beta: number, gammaBetaRatio: number): PairRule =>
  (chosen, rejected) => {
    const value = Math.max(0, 1 - beta * (chosen - rejected - gammaBetaRatio));
    const slope = value > 0 ? -beta : 0;
    return { losses: [value, 0], slopes: [slope, -slope] };
  };

/** log(1 + e^x); beyond 40 it is x to the last bit. */
function softplus(x: number): number {
  return x > 40 ? x : Math.log1p(Math.exp(x));
}

function meanOf(rows: Float64Array): number {
  return rows.reduce((sum, value) => sum + value, 0) / rows.length;
}
