import type { Tensor } from "./tensor.js";

/** Which operand of `a · b` is transposed, in the order of native/core/tensor.h. */
export const MATMUL_FORMS = ["nn", "nt", "tn"] as const;
export type MatmulForm = (typeof MATMUL_FORMS)[number];

/**
 * The ops, as methods of a {@link Stream}: the typed face of native/ops/ops.def, where formulas, shapes and
 * sources are given in full. Outputs come first, then inputs, then scalars; `d` is a gradient. Every call
 * throws ContractError at once when shapes or dtypes do not fit, and otherwise enqueues and returns.
 *
 * Letters: T tokens, S segments, N scored rows, R responses, C hidden, H query heads, K key/value heads,
 * D head dim, F intermediate, V vocabulary. "x" is f32 or bf16, alike for all arguments so marked.
 */
export interface Ops {
  /** x = value. */
  fill(x: Tensor, value: number): void;
  /** y = x rounded to y's dtype; f32, bf16, f16. */
  convert(y: Tensor, x: Tensor): void;

  /** c = a · b; c (M,N) f32 or x. nn: a (M,K) b (K,N). nt: a (M,K) b (N,K). tn: a (K,M) b (K,N). */
  matmul(c: Tensor, a: Tensor, b: Tensor, form: MatmulForm): void;
  /** c += a · b; c (M,N) f32. */
  matmulAdd(c: Tensor, a: Tensor, b: Tensor, form: MatmulForm): void;

  /** y[t] = weight[tokens[t]]; y (T,C) x, tokens (T) i32, weight (V,C) x. */
  embeddingForward(y: Tensor, tokens: Tensor, weight: Tensor): void;
  /** dWeight[unique[u]] += the sum of its rows of dy; dWeight (V,C) f32; unique, offsets, rows i32. */
  embeddingBackward(
    dWeight: Tensor,
    dy: Tensor,
    unique: Tensor,
    offsets: Tensor,
    rows: Tensor,
  ): void;

  /** y = x · rstd · weight, rstd = 1/sqrt(mean x² + eps); y, x (T,C) x, rstd (T) f32, weight (C) x. */
  rmsnormForward(y: Tensor, rstd: Tensor, x: Tensor, weight: Tensor, eps: number): void;
  /** sum = x + branch, y = rmsnorm(sum). */
  addRmsnormForward(
    y: Tensor,
    sum: Tensor,
    rstd: Tensor,
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    eps: number,
  ): void;
  /** dx = gradient of rmsnorm, dWeight (C) f32 += . */
  rmsnormBackward(
    dx: Tensor,
    dWeight: Tensor,
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    rstd: Tensor,
  ): void;
  /** dx += gradient of rmsnorm, dWeight (C) f32 += . */
  rmsnormBackwardAdd(
    dx: Tensor,
    dWeight: Tensor,
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    rstd: Tensor,
  ): void;

  /** Rotates the first `heads` heads of each row of x in place; positions (T) i32, table (P,D) f32. */
  ropeForward(x: Tensor, positions: Tensor, table: Tensor, heads: number): void;
  /** The inverse rotation, for the gradient. */
  ropeBackward(dx: Tensor, positions: Tensor, table: Tensor, heads: number): void;
  /** Causal grouped-query attention over segments with a shared prefix; o (T,H·D) x, lse (T,H) f32. */
  attentionForward(
    o: Tensor,
    lse: Tensor,
    qkv: Tensor,
    segments: Tensor,
    heads: number,
    kvHeads: number,
  ): void;
  /** dQkv = gradient of attention; delta (T,H) f32 is scratch. */
  attentionBackward(
    dQkv: Tensor,
    delta: Tensor,
    dO: Tensor,
    o: Tensor,
    lse: Tensor,
    qkv: Tensor,
    segments: Tensor,
    heads: number,
    kvHeads: number,
  ): void;
  /** Copies k and v of each row to row slots[t] of the caches (M,K·D) x; -1 skips. */
  kvCacheWrite(kCache: Tensor, vCache: Tensor, qkv: Tensor, slots: Tensor, heads: number): void;
  /** One query row per sequence over cache rows ranges[t] = {begin, length}. */
  attentionDecode(
    o: Tensor,
    qkv: Tensor,
    kCache: Tensor,
    vCache: Tensor,
    ranges: Tensor,
    heads: number,
  ): void;

  /** hidden = silu(gate) · up; hidden (T,F) x, gateUp (T,2F) x. */
  swigluForward(hidden: Tensor, gateUp: Tensor): void;
  swigluBackward(dGateUp: Tensor, dHidden: Tensor, gateUp: Tensor): void;

  /** y[n] = x[rows[n]], zeros for -1; y (N,C) x, rows (N) i32. */
  gatherRows(y: Tensor, x: Tensor, rows: Tensor): void;
  /** dx[t] = the sum of dy over its at most two sources; dx (T,C) x, sources (T,2) i32. */
  scatterRows(dx: Tensor, dy: Tensor, sources: Tensor): void;
  /** logp, lse (N) f32 of logits (N,V) f32 at labels (N) i32; label -1: logp 0. */
  logprobForward(logp: Tensor, lse: Tensor, logits: Tensor, labels: Tensor): void;
  /** dLogits = coefficient · (onehot − softmax); f32 or bf16, may lie over logits. */
  logprobBackward(
    dLogits: Tensor,
    logits: Tensor,
    lse: Tensor,
    labels: Tensor,
    coefficient: Tensor,
  ): void;
  /** Per response: mean logp, ∓scale·exp(mean), and d loss / d logp per row. [Xiao et al. 2025, eq. 4] */
  simperLoss(
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    scale: number,
  ): void;
  /** Per sequence: mean logp, −scale·sum of logp, and d loss / d logp per row. */
  sftLoss(
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    scale: number,
  ): void;

  /** partials (B) f32 = sums of squares of equal blocks of x (n) f32. */
  sumSquares(partials: Tensor, x: Tensor): void;
  /** out (2) f32 = {norm, min(1, maxNorm/(norm+1e-6))}; maxNorm 0 never clips. */
  clipFactor(out: Tensor, partials: Tensor, maxNorm: number): void;
  /** One AdamW update of a flat range; weight (n) x, the others f32. [Loshchilov & Hutter 2019] */
  adamw(
    weight: Tensor,
    master: Tensor,
    m: Tensor,
    v: Tensor,
    grad: Tensor,
    clip: Tensor,
    lr: number,
    beta1: number,
    beta2: number,
    eps: number,
    weightDecay: number,
    step: number,
  ): void;
}

/** Name of an op in the table: `rmsnorm_forward`. */
export type OpName = string;

/** Its method on a stream: `rmsnormForward`. */
export function opMethod(name: OpName): keyof Ops {
  return name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()) as keyof Ops;
}
