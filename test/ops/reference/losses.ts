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

function meanOf(rows: Float64Array): number {
  return rows.reduce((sum, value) => sum + value, 0) / rows.length;
}
