import { type Loss, type LossKind, sftOption } from "./loss.js";

const plain: Loss = {
  name: "SimPER",
  examples: "pairs",
  scale: ({ examples }) => 1 / examples,
  reduce: (s, mean, loss, coefficient, logp, responses, scale) =>
    s.simperLoss(mean, loss, coefficient, logp, responses, scale),
};

/**
 * SimPER: −exp(mean logp of the chosen response) + exp(mean logp of the rejected one), the mean over the
 * pairs of an optimizer step. No reference model, no hyper-parameters. [Xiao et al. 2025, eq. 4]
 */
export const simper: LossKind = {
  examples: "pairs",
  create: ({ sftWeight }) => {
    if (sftWeight === 0) return plain;
    return {
      ...plain,
      wholePairs: true,
      options: sftOption(sftWeight),
      sftWeight,
      reduce: (s, mean, loss, coefficient, logp, responses, scale, tokenWeights) =>
        s.simperSftLoss(mean, loss, coefficient, logp, responses, tokenWeights, scale),
    };
  },
};
