import type { OpCase } from "../harness/case.js";
import * as adamw from "./adamw.js";
import * as attention from "./attention.js";
import * as attentionWindow from "./attention-window.js";
import * as bias from "./bias.js";
import * as convert from "./convert.js";
import * as embedding from "./embedding.js";
import * as fill from "./fill.js";
import * as gradNorm from "./grad-norm.js";
import * as kvCache from "./kv-cache.js";
import * as logprob from "./logprob.js";
import * as matmul from "./matmul.js";
import * as pairLoss from "./pair-loss.js";
import * as qkNorm from "./qk-norm.js";
import * as rmsnorm from "./rmsnorm.js";
import * as rope from "./rope.js";
import * as rows from "./rows.js";
import * as sftLoss from "./sft-loss.js";
import * as simperLoss from "./simper-loss.js";
import * as swiglu from "./swiglu.js";

/** A case file exports lists of cases and nothing else. */
type CaseFile = Readonly<Record<string, readonly OpCase[]>>;

const FILES: readonly CaseFile[] = [
  fill,
  convert,
  matmul,
  bias,
  embedding,
  rmsnorm,
  qkNorm,
  rope,
  attention,
  attentionWindow,
  kvCache,
  swiglu,
  rows,
  logprob,
  simperLoss,
  sftLoss,
  pairLoss,
  gradNorm,
  adamw,
];

/** Every case of every op, in the order of the op table. */
export const allCases: readonly OpCase[] = FILES.flatMap((file) => Object.values(file).flat());
