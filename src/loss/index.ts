import type { Loss, LossKind } from "./loss.js";
import type { LossOptions, LossType } from "./schema.js";
import { sft } from "./sft.js";
import { simper } from "./simper.js";
import { hinge, sigmoid } from "./simpo.js";

export {
  type HostGradient,
  type HostPair,
  type HostPairTerm,
  type HostResponse,
  type HostSequenceTerm,
  hostPairLoss,
  hostSequenceLoss,
} from "./host.js";
export type { Loss, LossKind } from "./loss.js";
export type { LossOptions, LossType } from "./schema.js";

/** Losses by the recipe's `loss_type`. */
export const losses: Readonly<Record<LossType, LossKind>> = { SimPER: simper, sigmoid, hinge, sft };

/** The loss that a recipe asks for. */
export function createLoss(options: LossOptions): Loss {
  return losses[options.lossType].create(options);
}
