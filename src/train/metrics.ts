import type { PairMetric } from "../report/records.js";

/** Loss and pair metrics of some examples, from the means and loss terms of their responses. */
export interface ResponseMetrics {
  readonly loss: number;
  /** Absent for plain sequences. */
  readonly pairs?: Readonly<Record<PairMetric, number>>;
}

/**
 * Sums the loss terms and averages the metrics of the reference trainer over pairs: `rewards/*` and `logps/*`
 * are mean log-probs, an accuracy counts chosen strictly above rejected.
 *
 * @param means (R) mean log-prob of each response: chosen, rejected, chosen, … for pairs
 * @param losses (R) terms whose sum is the loss
 */
export function responseMetrics(
  means: Float32Array,
  losses: Float32Array,
  pairs: boolean,
): ResponseMetrics {
  const loss = losses.reduce((sum, term) => sum + term, 0);
  if (!pairs) return { loss };
  const count = means.length / 2;
  const total = { chosen: 0, rejected: 0, right: 0, expChosen: 0, expRejected: 0 };
  for (let i = 0; i < count; i++) {
    const chosen = means[2 * i]!;
    const rejected = means[2 * i + 1]!;
    total.chosen += chosen;
    total.rejected += rejected;
    total.right += chosen > rejected ? 1 : 0;
    total.expChosen += Math.exp(chosen);
    total.expRejected += Math.exp(rejected);
  }
  return {
    loss,
    pairs: {
      "rewards/chosen": total.chosen / count,
      "rewards/rejected": total.rejected / count,
      "rewards/accuracies": total.right / count,
      "rewards/margins": (total.chosen - total.rejected) / count,
      "logps/chosen": total.chosen / count,
      "logps/rejected": total.rejected / count,
      "simper/chosen": total.expChosen / count,
      "simper/rejected": total.expRejected / count,
    },
  };
}
