import type { Stream, Tensor } from "../native/index.js";
import type { DecoderBlock } from "./decoder-parameters.js";
import type { RowSpec } from "./parameters.js";
import type { ModelShape } from "./shape.js";

// The decoder of all families: pre-norm attention and SwiGLU, with biases and norms of query and key heads
// where the shape has them.

// ---- buffers ------------------------------------------------------------------------------------------

/**
 * What a block's backward needs of its forward; one row per token. Outputs of the norms and of SwiGLU are not
 * kept: the backward ops write them again as they pass.
 */
export function decoderActivations(shape: ModelShape) {
  const { hiddenSize: C, intermediateSize: F, numHeads: H, numKvHeads: K, headDim: D } = shape;
  const qkNorm = {
    projected: { dtype: "x", row: [(H + 2 * K) * D] }, // q, k, v before the norm of q and k heads
    qkRstd: { dtype: "f32", row: [H + K] },
  } as const;
  return {
    x: { dtype: "x", row: [C] }, // residual stream entering the block
    rstd1: { dtype: "f32", row: [] },
    ...(shape.qkNorm ? qkNorm : {}),
    qkv: { dtype: "x", row: [(H + 2 * K) * D] }, // as attention reads it
    o: { dtype: "x", row: [H * D] },
    lse: { dtype: "f32", row: [H] },
    mid: { dtype: "x", row: [C] }, // residual stream after attention
    rstd2: { dtype: "f32", row: [] },
    gateUp: { dtype: "x", row: [2 * F] }, // becomes its own gradient
  } as const satisfies Record<string, RowSpec>;
}
/** `projected` and `qkRstd` are there with `qkNorm` only. */
export type DecoderActivations = Record<keyof ReturnType<typeof decoderActivations>, Tensor>;

/** Scratch that all blocks share in both directions; one row per token. */
export function decoderScratch(shape: ModelShape) {
  const { hiddenSize: C, intermediateSize: F } = shape;
  return {
    branch: { dtype: "x", row: [C] }, // what the next norm adds to the residual stream
    normed: { dtype: "x", row: [C] }, // backward: its gradient, then again the values
    hidden: { dtype: "x", row: [F] }, // likewise
  } as const satisfies Record<string, RowSpec>;
}
export type DecoderScratch = Record<keyof ReturnType<typeof decoderScratch>, Tensor>;

/** Scratch of a block's backward, shared by all blocks; one row per token. */
export function decoderBackwardScratch(shape: ModelShape) {
  const { numHeads: H, numKvHeads: K, headDim: D } = shape;
  return {
    dO: { dtype: "x", row: [H * D] },
    delta: { dtype: "f32", row: [H] },
    dQkv: { dtype: "x", row: [(H + 2 * K) * D] },
  } as const satisfies Record<string, RowSpec>;
}
export type DecoderBackwardScratch = Record<
  keyof ReturnType<typeof decoderBackwardScratch>,
  Tensor
>;

/** Where the tokens of a micro-batch stand: positions (T), segments (S,4), RoPE table (P,D). */
export interface Layout {
  readonly positions: Tensor;
  readonly segments: Tensor;
  readonly ropeTable: Tensor;
  /** Keys that a row sees, 0 where that are all before it: see {@link attentionWindow}. */
  readonly window: number;
}

/** The window as attention takes it: 0 where no sequence of `positions` tokens is longer than it. */
export function attentionWindow({ slidingWindow }: ModelShape, positions: number): number {
  return slidingWindow !== null && positions > slidingWindow ? slidingWindow : 0;
}

/** Attention of a block: training reads the keys beside the queries, generation reads a cache. */
export type Attend = (s: Stream, o: Tensor, lse: Tensor, qkv: Tensor) => void;

// ---- one block, forward and backward side by side ---------------------------------------------------------

/**
 * x = mid_before + branch, then attention and MLP, each on the RMS norm of the residual stream. The MLP's
 * output is left in `t.branch`: the next block (or the final norm) adds it.
 *
 * @param before residual stream that `t.branch` (T, C) is added to; null in the first block, where `a.x` is set.
 */
export function decoderForward(
  s: Stream,
  shape: ModelShape,
  w: DecoderBlock,
  a: DecoderActivations,
  before: Tensor | null,
  t: DecoderScratch,
  layout: Layout,
  attend: Attend,
): void {
  const eps = shape.rmsNormEps;
  if (before)
    s.addRmsnormForward(t.normed, a.x, a.rstd1, before, t.branch, w.inputNorm, eps); // (1)
  else s.rmsnormForward(t.normed, a.rstd1, a.x, w.inputNorm, eps);
  attentionAndMlp(s, shape, w, a, t, layout, attend);
  s.swigluForward(t.hidden, a.gateUp); //                                                      (10)
  s.matmul(t.branch, t.hidden, w.down, "nt"); //                                               (11)
}

/** Everything the backward needs, again from `a.x`: gradient checkpointing. */
export function decoderRecompute(
  s: Stream,
  shape: ModelShape,
  w: DecoderBlock,
  a: DecoderActivations,
  t: DecoderScratch,
  layout: Layout,
  attend: Attend,
): void {
  s.rmsnormForward(t.normed, a.rstd1, a.x, w.inputNorm, shape.rmsNormEps); //                 (1)
  attentionAndMlp(s, shape, w, a, t, layout, attend);
}

function attentionAndMlp(
  s: Stream,
  shape: ModelShape,
  w: DecoderBlock,
  a: DecoderActivations,
  t: DecoderScratch,
  layout: Layout,
  attend: Attend,
): void {
  const { numHeads: H, numKvHeads: K, rmsNormEps: eps } = shape;
  const projected = shape.qkNorm ? a.projected : a.qkv;
  s.matmul(projected, t.normed, w.qkv, "nt"); //                                               (2)
  if (shape.qkvBias) s.addBias(projected, w.qkvBias); //                                       (3)
  if (shape.qkNorm) {
    s.qkNormForward(a.qkv, a.qkRstd, projected, w.qNorm, w.kNorm, H, K, eps); //               (4)
  }
  s.ropeForward(a.qkv, layout.positions, layout.ropeTable, H + K); //                          (5)
  attend(s, a.o, a.lse, a.qkv); //                                                             (6)
  s.matmul(t.branch, a.o, w.o, "nt"); //                                                       (7)
  s.addRmsnormForward(t.normed, a.mid, a.rstd2, a.x, t.branch, w.postNorm, eps); //            (8)
  s.matmul(a.gateUp, t.normed, w.gateUp, "nt"); //                                             (9)
}

/**
 * `d` (T, C) holds the gradient of the block's output and becomes that of its input; dW +=. The gradient of a
 * matrix's input comes before that of its weight: on the way back the norm, or SwiGLU, overwrites it with the
 * input itself, which the weight's gradient needs.
 */
export function decoderBackward(
  s: Stream,
  shape: ModelShape,
  d: Tensor,
  dW: DecoderBlock,
  w: DecoderBlock,
  a: DecoderActivations,
  t: DecoderScratch & DecoderBackwardScratch,
  layout: Layout,
): void {
  const { numHeads: H, numKvHeads: K } = shape;
  const { normed, hidden, dQkv } = t;
  const { positions, segments, ropeTable, window } = layout;
  s.matmul(hidden, d, w.down, "nn"); //                                               undo (11), input
  s.swigluBackward(a.gateUp, hidden, hidden, a.gateUp); //                            undo (10)
  s.matmulAdd(dW.down, d, hidden, "tn"); //                                           undo (11), weight
  s.matmul(normed, a.gateUp, w.gateUp, "nn"); //                                      undo (9), input
  s.rmsnormBackwardAdd(d, normed, dW.postNorm, normed, a.mid, w.postNorm, a.rstd2); // undo (8)
  s.matmulAdd(dW.gateUp, a.gateUp, normed, "tn"); //                                  undo (9), weight
  s.matmul(t.dO, d, w.o, "nn"); //                                                    undo (7), input
  s.matmulAdd(dW.o, d, a.o, "tn"); //                                                 undo (7), weight
  s.attentionBackward(dQkv, t.delta, t.dO, a.o, a.lse, a.qkv, segments, H, K, window); // undo (6)
  s.ropeBackward(dQkv, positions, ropeTable, H + K); //                               undo (5)
  if (shape.qkNorm) {
    const { qNorm, kNorm } = dW;
    s.qkNormBackward(dQkv, qNorm, kNorm, dQkv, a.projected, w.qNorm, w.kNorm, a.qkRstd, H, K); // undo (4)
  }
  if (shape.qkvBias) s.biasBackward(dW.qkvBias, dQkv); //                             undo (3)
  s.matmul(normed, dQkv, w.qkv, "nn"); //                                             undo (2), input
  s.rmsnormBackwardAdd(d, normed, dW.inputNorm, normed, a.x, w.inputNorm, a.rstd1); // undo (1)
  s.matmulAdd(dW.qkv, dQkv, normed, "tn"); //                                         undo (2), weight
}
