import { type LossKind, sftOption } from "./loss.js";

/**
 * SimPO: with z = mean logp of the chosen response − mean logp of the rejected one − gamma_beta_ratio and
 * s = label_smoothing, −(1 − s)·log σ(beta·z) − s·log σ(−beta·z), the mean over the pairs of an optimizer
 * step. [Meng et al. 2024, eq. 6]
 */
export const sigmoid: LossKind = {
  examples: "pairs",
  create: ({ beta, gammaBetaRatio, labelSmoothing, sftWeight }) => ({
    name: "sigmoid",
    examples: "pairs",
    wholePairs: true,
    options: {
      beta,
      gamma_beta_ratio: gammaBetaRatio,
      label_smoothing: labelSmoothing,
      ...sftOption(sftWeight),
    },
    sftWeight,
    scale: ({ examples }) => 1 / examples,
    reduce: (s, mean, loss, coefficient, logp, responses, scale, tokenWeights) =>
      s.sigmoidLoss(
        mean,
        loss,
        coefficient,
        logp,
        responses,
        tokenWeights,
        scale,
        beta,
        gammaBetaRatio,
        labelSmoothing,
      ),
  }),
};

/** The hinge form of {@link sigmoid}: max(0, 1 − beta·z). */
export const hinge: LossKind = {
  examples: "pairs",
  create: ({ beta, gammaBetaRatio, sftWeight }) => ({
    name: "hinge",
    examples: "pairs",
    wholePairs: true,
    options: { beta, gamma_beta_ratio: gammaBetaRatio, ...sftOption(sftWeight) },
    sftWeight,
    scale: ({ examples }) => 1 / examples,
    reduce: (s, mean, loss, coefficient, logp, responses, scale, tokenWeights) =>
      s.hingeLoss(
        mean,
        loss,
        coefficient,
        logp,
        responses,
        tokenWeights,
        scale,
        beta,
        gammaBetaRatio,
      ),
  }),
};
