import type { OpCase } from "../harness/case.js";
import { simperLoss as reference } from "../reference/losses.js";
import { responseLossCases } from "./response-loss.js";

export const simperLoss: readonly OpCase[] = responseLossCases("simperLoss", reference);
