import type { Tensor } from "./tensor.js";

/** Which operand of `a · b` is transposed, in the order of native/core/tensor.h. */
export const MATMUL_FORMS = ["nn", "nt", "tn"] as const;
/** `nn`: a · b, `nt`: a · bᵀ, `tn`: aᵀ · b. */
export type MatmulForm = (typeof MATMUL_FORMS)[number];

/**
 * The ops, as methods of a {@link Stream}: the typed face of native/ops/ops.def. Outputs come first, then
 * inputs, then scalars; `d` is a gradient. A call checks its arguments, enqueues and returns.
 *
 * **Letters.** T tokens of a packed batch, S segments, N scored rows, R responses, C hidden size, H query
 * heads, K key/value heads, D head dim, F intermediate size, V vocabulary. "x" stands for f32 or bf16, the
 * same for all arguments marked x. "=" overwrites, "+=" accumulates. Sums are accumulated in f32 or f64, in
 * a fixed order: equal inputs give equal bits.
 *
 * **Errors.** Every op throws ContractError at the call, before anything is enqueued, when an argument is
 * missing, disposed, of the wrong kind, dtype or shape, or lies over another one in a way that is not listed;
 * the message names op, argument, expected and received. Values inside index tensors (tokens, labels,
 * rows, segments) are seen only when the op runs: the next `done()` or `read()` rejects with the ContractError,
 * and what was enqueued in between is skipped.
 */
export interface Ops {
  // ---- memory ------------------------------------------------------------------------------------------

  /**
   * x = value.
   * @param x any shape, f32 or bf16
   * @param value rounded to x's dtype
   */
  fill(x: Tensor, value: number): void;

  /**
   * y = x, rounded to y's dtype (to nearest, ties to even).
   * @param y f32, bf16 or f16; may be x where the dtypes are alike
   * @param x the shape of y; f32, bf16 or f16
   */
  convert(y: Tensor, x: Tensor): void;

  // ---- linear layers -----------------------------------------------------------------------------------

  /**
   * c = a · b, accumulated in f32.
   * @param c (M,N) f32, or a's dtype
   * @param a x; (M,K), with `tn` (K,M)
   * @param b x; (K,N), with `nt` (N,K)
   * @param form which operand is transposed
   */
  matmul(c: Tensor, a: Tensor, b: Tensor, form: MatmulForm): void;

  /**
   * c += a · b: as {@link Ops.matmul}, for gradients of weights.
   * @param c (M,N) f32
   * @param a x; (M,K), with `tn` (K,M)
   * @param b x; (K,N), with `nt` (N,K)
   * @param form which operand is transposed
   */
  matmulAdd(c: Tensor, a: Tensor, b: Tensor, form: MatmulForm): void;

  /**
   * x[t] += bias, in place.
   * @param x (T,N) x
   * @param bias (N) x
   */
  addBias(x: Tensor, bias: Tensor): void;

  /**
   * dBias += Σ_t dy[t].
   * @param dBias (N) f32
   * @param dy (T,N) x
   */
  biasBackward(dBias: Tensor, dy: Tensor): void;

  // ---- embedding ---------------------------------------------------------------------------------------

  /**
   * y[t] = weight[tokens[t]].
   * @param y (T,C) x
   * @param tokens (T) i32, 0 to V − 1
   * @param weight (V,C) x
   */
  embeddingForward(y: Tensor, tokens: Tensor, weight: Tensor): void;

  /**
   * dWeight[unique[u]] += Σ dy[rows[i]] for i in [offsets[u], offsets[u+1]), in that order.
   * @param dWeight (V,C) f32
   * @param dy (T,C) x
   * @param unique (U) i32, ids of the tokens that occur, each once
   * @param offsets (U+1) i32, ascending, into `rows`
   * @param rows i32, at most T: rows of dy, those of one token together
   */
  embeddingBackward(
    dWeight: Tensor,
    dy: Tensor,
    unique: Tensor,
    offsets: Tensor,
    rows: Tensor,
  ): void;

  // ---- normalization -----------------------------------------------------------------------------------

  /**
   * RMSNorm: y[t,c] = x[t,c] · rstd[t] · weight[c], rstd[t] = 1/sqrt(mean_c x[t,c]² + eps).
   * Source: Zhang & Sennrich 2019, eq. 4.
   * @param y (T,C) x; may be x
   * @param rstd (T) f32, kept for the backward
   * @param x (T,C) x
   * @param weight (C) x
   * @param eps added to the mean square
   */
  rmsnormForward(y: Tensor, rstd: Tensor, x: Tensor, weight: Tensor, eps: number): void;

  /**
   * sum = x + branch, y = rmsnorm(sum): the residual add and the norm that follows it, in one pass.
   * Source: Zhang & Sennrich 2019, eq. 4.
   * @param y (T,C) x
   * @param sum (T,C) x; may be x or branch
   * @param rstd (T) f32, kept for the backward
   * @param x (T,C) x
   * @param branch (T,C) x
   * @param weight (C) x
   * @param eps added to the mean square
   */
  addRmsnormForward(
    y: Tensor,
    sum: Tensor,
    rstd: Tensor,
    x: Tensor,
    branch: Tensor,
    weight: Tensor,
    eps: number,
  ): void;

  /**
   * dx = rstd · (g − x · rstd² · mean_c(g·x)) with g = dy · weight; dWeight += Σ_t dy · x · rstd.
   * Source: the derivative of Zhang & Sennrich 2019, eq. 4.
   * @param dx (T,C) x; may be dy
   * @param dWeight (C) f32
   * @param dy (T,C) x
   * @param x (T,C) x, the input of the forward
   * @param weight (C) x
   * @param rstd (T) f32, from the forward
   */
  rmsnormBackward(
    dx: Tensor,
    dWeight: Tensor,
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    rstd: Tensor,
  ): void;

  /**
   * {@link Ops.rmsnormBackward} with dx += : for the gradient of the residual stream, which accumulates.
   * y = x · rstd · weight, the forward's output again, so that it need not be kept.
   * @param dx (T,C) x
   * @param y (T,C) x; may be dy
   * @param dWeight (C) f32
   * @param dy (T,C) x
   * @param x (T,C) x, the input of the forward
   * @param weight (C) x
   * @param rstd (T) f32, from the forward
   */
  rmsnormBackwardAdd(
    dx: Tensor,
    y: Tensor,
    dWeight: Tensor,
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    rstd: Tensor,
  ): void;

  /**
   * {@link Ops.rmsnormForward} of every query head with qWeight and of every key head with kWeight, over its D
   * columns; the value heads are copied. Source: Yang et al. 2025 (Qwen3), sect. 2.
   * @param y (T, (H+2K)·D) x; may be x
   * @param rstd (T, H+K) f32, kept for the backward
   * @param x (T, (H+2K)·D) x: query heads, key heads, value heads
   * @param qWeight (D) x
   * @param kWeight (D) x
   * @param heads H
   * @param kvHeads K, a divisor of H
   * @param eps added to the mean square
   */
  qkNormForward(
    y: Tensor,
    rstd: Tensor,
    x: Tensor,
    qWeight: Tensor,
    kWeight: Tensor,
    heads: number,
    kvHeads: number,
    eps: number,
  ): void;

  /**
   * dx = gradient of {@link Ops.qkNormForward}; dQWeight += Σ over rows and query heads, dKWeight += Σ over rows
   * and key heads, of dy · x · rstd.
   * @param dx (T, (H+2K)·D) x; may be dy
   * @param dQWeight (D) f32
   * @param dKWeight (D) f32
   * @param dy (T, (H+2K)·D) x
   * @param x (T, (H+2K)·D) x, the input of the forward
   * @param qWeight (D) x
   * @param kWeight (D) x
   * @param rstd (T, H+K) f32, from the forward
   * @param heads H
   * @param kvHeads K
   */
  qkNormBackward(
    dx: Tensor,
    dQWeight: Tensor,
    dKWeight: Tensor,
    dy: Tensor,
    x: Tensor,
    qWeight: Tensor,
    kWeight: Tensor,
    rstd: Tensor,
    heads: number,
    kvHeads: number,
  ): void;

  // ---- attention ---------------------------------------------------------------------------------------

  /**
   * Rotary positions, in place: of each of the first `heads` heads, (a, b) = (x[i], x[i+D/2]) becomes
   * (a·cos − b·sin, b·cos + a·sin), the layout of Hugging Face's Llama. Source: Su et al. 2021, eq. 34.
   * @param x (T, at least heads·D) x
   * @param positions (T) i32, 0 to P − 1
   * @param table (P,D) f32: cosines in columns [0, D/2), sines in [D/2, D)
   * @param heads how many heads are rotated, from the left
   */
  ropeForward(x: Tensor, positions: Tensor, table: Tensor, heads: number): void;

  /**
   * The inverse rotation, which is the transpose: applied to the gradient, in place. Source: Su et al. 2021.
   * @param dx (T, at least heads·D) x
   * @param positions (T) i32, 0 to P − 1
   * @param table (P,D) f32, as in the forward
   * @param heads how many heads are rotated, from the left
   */
  ropeBackward(dx: Tensor, positions: Tensor, table: Tensor, heads: number): void;

  /**
   * o = softmax(q·kᵀ/√D + mask)·v per query head; lse = logsumexp of each row's scaled scores. Row t of a
   * segment sees the keys [prefix_start, prefix_end) ∪ [start, t]. Query head h reads key/value head
   * ⌊h·K/H⌋. A row in no segment gets o = 0, lse = 0. Source: Dao 2023, alg. 1.
   *
   * With a window W > 0 a row sees only the last W of these keys, itself among them, counted along prefix and
   * segment: own keys j > t − W, prefix keys j > (t − start) + prefix_end − W. Source: Beltagy et al. 2020,
   * sect. 3.1.
   * @param o (T, H·D) x
   * @param lse (T,H) f32, kept for the backward
   * @param qkv (T, (H+2K)·D) x: query heads, key heads, value heads
   * @param segments (S,4) i32 {start, end, prefix_start, prefix_end}, within [0, T]
   * @param heads H
   * @param kvHeads K, a divisor of H
   * @param window W; 0: every key
   */
  attentionForward(
    o: Tensor,
    lse: Tensor,
    qkv: Tensor,
    segments: Tensor,
    heads: number,
    kvHeads: number,
    window: number,
  ): void;

  /**
   * dQkv = gradient of {@link Ops.attentionForward}; rows in no segment get 0. delta = rowsum(dO·o) per head.
   * Source: Dao 2023, alg. 2.
   * @param dQkv (T, (H+2K)·D) x
   * @param delta (T,H) f32, scratch
   * @param dO (T, H·D) x
   * @param o (T, H·D) x, from the forward
   * @param lse (T,H) f32, from the forward
   * @param qkv (T, (H+2K)·D) x
   * @param segments (S,4) i32, as in the forward
   * @param heads H
   * @param kvHeads K
   * @param window W, as in the forward
   */
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
    window: number,
  ): void;

  /**
   * Copies the key and value heads of each row of qkv to row slots[t] of the caches.
   * @param kCache (M, K·D) x
   * @param vCache (M, K·D) x
   * @param qkv (T, (H+2K)·D) x
   * @param slots (T) i32, 0 to M − 1; −1 skips the row
   * @param heads H
   */
  kvCacheWrite(kCache: Tensor, vCache: Tensor, qkv: Tensor, slots: Tensor, heads: number): void;

  /**
   * Attention of one query row per sequence over its cached keys: row t sees the cache rows
   * [ranges[t][0], ranges[t][0] + ranges[t][1]). Source: Vaswani et al. 2017, eq. 1.
   * @param o (T, H·D) x
   * @param qkv (T, (H+2K)·D) x, of which the query heads are read
   * @param kCache (M, K·D) x
   * @param vCache (M, K·D) x
   * @param ranges (T,2) i32 {begin, length}, within [0, M]
   * @param heads H
   */
  attentionDecode(
    o: Tensor,
    qkv: Tensor,
    kCache: Tensor,
    vCache: Tensor,
    ranges: Tensor,
    heads: number,
  ): void;

  // ---- MLP ---------------------------------------------------------------------------------------------

  /**
   * hidden = silu(gate) · up, silu(z) = z/(1 + e⁻ᶻ). Source: Shazeer 2020, eq. 6.
   * @param hidden (T,F) x
   * @param gateUp (T,2F) x: gate in columns [0, F), up in [F, 2F)
   */
  swigluForward(hidden: Tensor, gateUp: Tensor): void;

  /**
   * dGateUp = gradient of {@link Ops.swigluForward}; hidden = its output again, so that it need not be
   * kept. Source: the derivative of Shazeer 2020, eq. 6.
   * @param dGateUp (T,2F) x; may be gateUp
   * @param hidden (T,F) x; may be dHidden
   * @param dHidden (T,F) x
   * @param gateUp (T,2F) x
   */
  swigluBackward(dGateUp: Tensor, hidden: Tensor, dHidden: Tensor, gateUp: Tensor): void;

  // ---- head: scored rows, log-probabilities, losses ----------------------------------------------------

  /**
   * y[n] = x[rows[n]], zeros where rows[n] = −1; a row may be gathered twice.
   * @param y (N,C) x
   * @param x (T,C) x
   * @param rows (N) i32, −1 to T − 1
   */
  gatherRows(y: Tensor, x: Tensor, rows: Tensor): void;

  /**
   * dx[t] = dy[sources[t][0]] + dy[sources[t][1]], an absent source (−1) adding nothing.
   * @param dx (T,C) x
   * @param dy (N,C) x
   * @param sources (T,2) i32, −1 to N − 1
   */
  scatterRows(dx: Tensor, dy: Tensor, sources: Tensor): void;

  /**
   * lse[n] = logsumexp(logits[n]), logp[n] = logits[n][labels[n]] − lse[n]; 0 where labels[n] = −1.
   * @param logp (N) f32
   * @param lse (N) f32, kept for the backward
   * @param logits (N,V) f32
   * @param labels (N) i32, −1 to V − 1
   */
  logprobForward(logp: Tensor, lse: Tensor, logits: Tensor, labels: Tensor): void;

  /**
   * dLogits[n] = coefficient[n] · (onehot(labels[n]) − softmax(logits[n])); zeros where labels[n] = −1.
   * @param dLogits (N,V) f32 or bf16; may lie over logits with the same bytes per row
   * @param logits (N,V) f32
   * @param lse (N) f32, from the forward
   * @param labels (N) i32, −1 to V − 1
   * @param coefficient (N) f32, d loss / d logp
   */
  logprobBackward(
    dLogits: Tensor,
    logits: Tensor,
    lse: Tensor,
    labels: Tensor,
    coefficient: Tensor,
  ): void;

  /**
   * SimPER: mean[r] = mean of logp over the response, loss[r] = ∓scale · exp(mean[r]) (− chosen, + rejected),
   * coefficient[n] = d loss / d logp[n] = loss[r] / length. An empty response has mean 0 and loss 0.
   * Source: Xiao et al. 2025, eq. 4.
   * @param mean (R) f32
   * @param loss (R) f32
   * @param coefficient (N) f32, written in the ranges of the responses only; may be logp
   * @param logp (N) f32
   * @param responses (R,3) i32 {begin, end, side}, ranges in logp; side 0 is chosen, 1 rejected
   * @param scale weight of a term: 1 / pairs of the optimizer step
   */
  simperLoss(
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    scale: number,
  ): void;

  /**
   * Next-token cross-entropy: loss[r] = −scale · Σ logp over the response, coefficient[n] = −scale; mean[r]
   * as in {@link Ops.simperLoss}.
   * @param mean (R) f32
   * @param loss (R) f32
   * @param coefficient (N) f32, written in the ranges of the responses only; may be logp
   * @param logp (N) f32
   * @param responses (R,3) i32 {begin, end, side}, ranges in logp
   * @param scale weight of a token: 1 / scored tokens of the optimizer step
   */
  sftLoss(
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    scale: number,
  ): void;

  /**
   * SimPER with an SFT term, on whole pairs: loss[r] = ∓scale · exp(mean[r]) − tokenWeight[r] · Σ logp,
   * coefficient[n] = d loss / d logp[n]. Where all tokenWeight are 0 it is {@link Ops.simperLoss}.
   * Source: Xiao et al. 2025, eq. 4.
   * @param mean (R) f32
   * @param loss (R) f32
   * @param coefficient (N) f32, written in the ranges of the responses only; may be logp
   * @param logp (N) f32
   * @param responses (R,3) i32 {begin, end, side}, ranges in logp; rows come in pairs, sides 0 and 1
   * @param tokenWeight (R) f32, weight of each token's −logp in the SFT term; 0: the response has none
   * @param scale weight of a pair: 1 / pairs of the optimizer step
   */
  simperSftLoss(
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    tokenWeight: Tensor,
    scale: number,
  ): void;

  /**
   * SimPO's loss on whole pairs: with z = mean of chosen − mean of rejected − gammaBetaRatio and s =
   * labelSmoothing, loss = scale · (−(1 − s) · log σ(beta·z) − s · log σ(−beta·z)) in the row of the chosen
   * response, and on top −tokenWeight[r] · Σ logp in every row; coefficient[n] = d loss / d logp[n].
   * Source: Meng et al. 2024, eq. 6.
   * @param mean (R) f32
   * @param loss (R) f32
   * @param coefficient (N) f32, written in the ranges of the responses only; may be logp
   * @param logp (N) f32
   * @param responses (R,3) i32 {begin, end, side}, ranges in logp; rows come in pairs, sides 0 and 1
   * @param tokenWeight (R) f32, as in {@link Ops.simperSftLoss}
   * @param scale weight of a pair: 1 / pairs of the optimizer step
   * @param labelSmoothing 0 to 1
   */
  sigmoidLoss(
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    tokenWeight: Tensor,
    scale: number,
    beta: number,
    gammaBetaRatio: number,
    labelSmoothing: number,
  ): void;

  /**
   * The hinge form of {@link Ops.sigmoidLoss}: max(0, 1 − beta·z) in the row of the chosen response.
   * @param mean (R) f32
   * @param loss (R) f32
   * @param coefficient (N) f32, written in the ranges of the responses only; may be logp
   * @param logp (N) f32
   * @param responses (R,3) i32 {begin, end, side}, ranges in logp; rows come in pairs, sides 0 and 1
   * @param tokenWeight (R) f32, as in {@link Ops.simperSftLoss}
   * @param scale weight of a pair: 1 / pairs of the optimizer step
   */
  hingeLoss(
    mean: Tensor,
    loss: Tensor,
    coefficient: Tensor,
    logp: Tensor,
    responses: Tensor,
    tokenWeight: Tensor,
    scale: number,
    beta: number,
    gammaBetaRatio: number,
  ): void;

  // ---- optimizer ---------------------------------------------------------------------------------------

  /**
   * partials = sums of x² over B equal blocks of x, in f64 inside.
   * @param partials (B) f32
   * @param x (n) f32
   */
  sumSquares(partials: Tensor, x: Tensor): void;

  /**
   * out = {norm, factor}: norm = sqrt(Σ partials), factor = min(1, maxNorm / (norm + 1e-6)).
   * Source: Pascanu et al. 2013, alg. 1.
   * @param out (2) f32
   * @param partials (B) f32, from {@link Ops.sumSquares}
   * @param maxNorm 0: factor is 1
   */
  clipFactor(out: Tensor, partials: Tensor, maxNorm: number): void;

  /**
   * One AdamW update of a flat range: g = factor·grad, m = β₁m + (1−β₁)g, v = β₂v + (1−β₂)g²,
   * master −= lr · (m/(1−β₁ᵗ) / (sqrt(v/(1−β₂ᵗ)) + eps) + weightDecay·master), weight = master rounded.
   * Nothing changes when the norm in `clip` is not finite. Source: Loshchilov & Hutter 2019, alg. 2.
   * @param weight (n) x
   * @param master (n) f32; may be weight
   * @param m (n) f32, first moment
   * @param v (n) f32, second moment
   * @param grad (n) f32
   * @param clip (2) f32 {norm, factor}, from {@link Ops.clipFactor}
   * @param lr learning rate, finite
   * @param beta1 β₁, 0 ≤ β₁ < 1
   * @param beta2 β₂, 0 ≤ β₂ < 1
   * @param eps 0 or more
   * @param weightDecay decoupled decay, finite
   * @param step t, counted from 1
   */
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
