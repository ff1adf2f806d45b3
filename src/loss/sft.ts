import type { Loss, LossKind } from "./loss.js";

const loss: Loss = {
  name: "sft",
  examples: "sequences",
  scale: ({ scoredTokens }) => 1 / scoredTokens,
  reduce: (s, mean, loss, coefficient, logp, responses, scale) =>
    s.sftLoss(mean, loss, coefficient, logp, responses, scale),
};

/** Next-token cross-entropy, the mean over the scored tokens of an optimizer step. */
export const sft: LossKind = { examples: "sequences", create: () => loss };
