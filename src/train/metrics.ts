import type { PairMetric } from "../report/records.js";

/** Loss and pair metrics of some examples, from the means and loss terms of their responses. */
export interface ResponseMetrics {
  readonly loss: number;
  /** Absent for plain sequences; `sft_loss` is there where the loss has an SFT term. */
  readonly pairs?: Readonly<Partial<Record<PairMetric, number>>>;
}

/**
 * Sums the loss terms and averages the metrics of the reference trainer over pairs: `rewards/*` and `logps/*`
 * are mean log-probs whatever the loss, an accuracy counts chosen strictly above rejected, and `sft_loss` is the SFT
 * term before its weight.
 *
 * @param means (R) mean log-prob of each response: chosen, rejected, chosen, … for pairs
 * @param losses (R) terms whose sum is the loss
 * @param sftShares (R/2) share of each chosen response's −mean in the SFT term, where the loss has one
 */
export function responseMetrics(
  means: Float32Array,
  losses: Float32Array,
  pairs: boolean,
  sftShares?: readonly number[],
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
      ...(sftShares && { sft_loss: sftLoss(means, sftShares) }),
    },
  };
}

function sftLoss(means: Float32Array, shares: readonly number[]): number {
  return shares.reduce((sum, share, i) => sum - share * means[2 * i]!, 0);
}
