import type { Loss } from "./loss.js";
import { sft } from "./sft.js";
import { simper } from "./simper.js";

export {
  type HostGradient,
  type HostPair,
  type HostPairTerm,
  type HostResponse,
  type HostSequenceTerm,
  hostPairLoss,
  hostSequenceLoss,
} from "./host.js";
export type { Loss } from "./loss.js";

/** Losses by the recipe's `loss_type`. */
export const losses = { SimPER: simper, sft } as const satisfies Record<string, Loss>;

/** Values of `loss_type`. */
export type LossType = keyof typeof losses;
