import type { OpCase } from "../harness/case.js";
import { sftLoss as reference } from "../reference/losses.js";
import { responseLossCases } from "./response-loss.js";

export const sftLoss: readonly OpCase[] = responseLossCases("sftLoss", reference);
