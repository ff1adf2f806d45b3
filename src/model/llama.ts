import type { Stream, Tensor } from "../native/index.js";
import { type BlockSpec, matrix, norm, type Parameters, type RowSpec } from "./parameters.js";
import { ConfigReader, type ModelShape, type RawConfig } from "./shape.js";

/** Reads a Llama `config.json` in the spelling of transformers 4 (`rope_theta`) or 5 (`rope_parameters`). */
export function readLlamaConfig(raw: RawConfig): ModelShape {
  const config = new ConfigReader(raw);
  config.neutral("hidden_act", ["silu", "swish"]);
  for (const name of ["attention_bias", "mlp_bias", "use_sliding_window"])
    config.neutral(name, [false]);
  config.neutral("partial_rotary_factor", [1]);
  for (const name of unsupported) config.neutral(name, []);

  const hiddenSize = config.count("hidden_size");
  const numHeads = config.count("num_attention_heads");
  const numKvHeads = config.count("num_key_value_heads", numHeads);
  const headDim = config.count("head_dim", hiddenSize / numHeads);
  if (numHeads % numKvHeads !== 0) {
    throw config.error(
      "num_key_value_heads",
      `a divisor of ${numHeads} (num_attention_heads)`,
      numKvHeads,
    );
  }
  if (headDim % 2 !== 0) throw config.error("head_dim", "an even number", headDim);
  return {
    family: "llama",
    hiddenSize,
    numHeads,
    numKvHeads,
    headDim,
    numLayers: config.count("num_hidden_layers"),
    intermediateSize: config.count("intermediate_size"),
    vocabSize: config.count("vocab_size"),
    rmsNormEps: config.positive("rms_norm_eps", 1e-6),
    ropeTheta: readRopeTheta(config),
    tiedEmbeddings: config.get("tie_word_embeddings") === true,
  };
}

/** Fields of related architectures that change the arithmetic and that nothing here computes. */
const unsupported = [
  "sliding_window",
  "attn_logit_softcapping",
  "final_logit_softcapping",
  "query_pre_attn_scalar",
  "attention_multiplier",
  "embedding_multiplier",
  "residual_multiplier",
  "logits_scaling",
  "logit_scale",
  "no_rope_layers",
  "quantization_config",
];

function readRopeTheta(config: ConfigReader): number {
  const scaling = config.get("rope_scaling");
  const parameters = config.get("rope_parameters");
  for (const [name, value] of Object.entries({
    rope_scaling: scaling,
    rope_parameters: parameters,
  })) {
    if (value === undefined) continue;
    if (typeof value !== "object" || Array.isArray(value)) {
      throw config.error(name, "a mapping with rope_type and rope_theta", value);
    }
    const {
      rope_type,
      type = rope_type,
      partial_rotary_factor = 1,
    } = value as Record<string, unknown>;
    if (type !== undefined && type !== null && type !== "default") {
      throw config.error(`${name}.rope_type`, '"default"', type);
    }
    if (partial_rotary_factor !== 1) {
      throw config.error(`${name}.partial_rotary_factor`, "1", partial_rotary_factor);
    }
  }
  const nested = (parameters as Record<string, unknown> | undefined)?.rope_theta;
  return config.positive("rope_theta", 10000, nested ?? config.get("rope_theta"));
}

// ---- parameters ---------------------------------------------------------------------------------------

/** qkv ((H+2K)·D, C) · o (C, H·D) · gateUp (2F, C) · down (C, F) · inputNorm, postNorm (C). */
export type LlamaBlock = Parameters<"qkv" | "o" | "gateUp" | "down" | "inputNorm" | "postNorm">;

/** embedding (V, C) · head (V, C), the embedding itself when tied · norm (C). */
export type LlamaEdge = Parameters<"embedding" | "head" | "norm">;

export function llamaBlock(shape: ModelShape, layer: number): BlockSpec {
  const { hiddenSize: C, intermediateSize: F, headDim: D } = shape;
  const name = (part: string) => `model.layers.${layer}.${part}.weight`;
  return {
    name: `layer ${layer}`,
    parameters: [
      matrix("qkv", C, [
        { name: name("self_attn.q_proj"), rows: shape.numHeads * D },
        { name: name("self_attn.k_proj"), rows: shape.numKvHeads * D },
        { name: name("self_attn.v_proj"), rows: shape.numKvHeads * D },
      ]),
      matrix("o", shape.numHeads * D, [{ name: name("self_attn.o_proj"), rows: C }]),
      matrix("gateUp", C, [
        { name: name("mlp.gate_proj"), rows: F },
        { name: name("mlp.up_proj"), rows: F },
      ]),
      matrix("down", F, [{ name: name("mlp.down_proj"), rows: C }]),
      norm("inputNorm", C, name("input_layernorm")),
      norm("postNorm", C, name("post_attention_layernorm")),
    ],
  };
}

export function llamaEdge(shape: ModelShape): BlockSpec {
  const { hiddenSize: C, vocabSize: V } = shape;
  const head = matrix("head", C, [{ name: "lm_head.weight", rows: V }]);
  return {
    name: "embedding, final norm and head",
    parameters: [
      matrix("embedding", C, [{ name: "model.embed_tokens.weight", rows: V }]),
      ...(shape.tiedEmbeddings ? [] : [head]),
      norm("norm", C, "model.norm.weight"),
    ],
  };
}

// ---- buffers ------------------------------------------------------------------------------------------

/**
 * What a block's backward needs of its forward; one row per token. Outputs of the norms and of SwiGLU are not
 * kept: the backward ops write them again as they pass.
 */
export function llamaActivations(shape: ModelShape) {
  const { hiddenSize: C, intermediateSize: F, numHeads: H, numKvHeads: K, headDim: D } = shape;
  return {
    x: { dtype: "x", row: [C] }, // residual stream entering the block
    rstd1: { dtype: "f32", row: [] },
    qkv: { dtype: "x", row: [(H + 2 * K) * D] },
    o: { dtype: "x", row: [H * D] },
    lse: { dtype: "f32", row: [H] },
    mid: { dtype: "x", row: [C] }, // residual stream after attention
    rstd2: { dtype: "f32", row: [] },
    gateUp: { dtype: "x", row: [2 * F] }, // becomes its own gradient
  } as const satisfies Record<string, RowSpec>;
}
export type LlamaActivations = Record<keyof ReturnType<typeof llamaActivations>, Tensor>;

/** Scratch that all blocks share in both directions; one row per token. */
export function llamaScratch(shape: ModelShape) {
  const { hiddenSize: C, intermediateSize: F } = shape;
  return {
    branch: { dtype: "x", row: [C] }, // what the next norm adds to the residual stream
    normed: { dtype: "x", row: [C] }, // backward: its gradient, then again the values
    hidden: { dtype: "x", row: [F] }, // likewise
  } as const satisfies Record<string, RowSpec>;
}
export type LlamaScratch = Record<keyof ReturnType<typeof llamaScratch>, Tensor>;

/** Scratch of a block's backward, shared by all blocks; one row per token. */
export function llamaBackwardScratch(shape: ModelShape) {
  const { numHeads: H, numKvHeads: K, headDim: D } = shape;
  return {
    dO: { dtype: "x", row: [H * D] },
    delta: { dtype: "f32", row: [H] },
    dQkv: { dtype: "x", row: [(H + 2 * K) * D] },
  } as const satisfies Record<string, RowSpec>;
}
export type LlamaBackwardScratch = Record<keyof ReturnType<typeof llamaBackwardScratch>, Tensor>;

/** Where the tokens of a micro-batch stand: positions (T), segments (S,4), RoPE table (P,D). */
export interface Layout {
  readonly positions: Tensor;
  readonly segments: Tensor;
  readonly ropeTable: Tensor;
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
export function llamaForward(
  s: Stream,
  shape: ModelShape,
  w: LlamaBlock,
  a: LlamaActivations,
  before: Tensor | null,
  t: LlamaScratch,
  layout: Layout,
  attend: Attend,
): void {
  const eps = shape.rmsNormEps;
  if (before)
    s.addRmsnormForward(t.normed, a.x, a.rstd1, before, t.branch, w.inputNorm, eps); // (1)
  else s.rmsnormForward(t.normed, a.rstd1, a.x, w.inputNorm, eps);
  attentionAndMlp(s, shape, w, a, t, layout, attend);
  s.swigluForward(t.hidden, a.gateUp); //                                                      (8)
  s.matmul(t.branch, t.hidden, w.down, "nt"); //                                               (9)
}

/** Everything the backward needs, again from `a.x`: gradient checkpointing. */
export function llamaRecompute(
  s: Stream,
  shape: ModelShape,
  w: LlamaBlock,
  a: LlamaActivations,
  t: LlamaScratch,
  layout: Layout,
  attend: Attend,
): void {
  s.rmsnormForward(t.normed, a.rstd1, a.x, w.inputNorm, shape.rmsNormEps); //                 (1)
  attentionAndMlp(s, shape, w, a, t, layout, attend);
}

function attentionAndMlp(
  s: Stream,
  shape: ModelShape,
  w: LlamaBlock,
  a: LlamaActivations,
  t: LlamaScratch,
  layout: Layout,
  attend: Attend,
): void {
  s.matmul(a.qkv, t.normed, w.qkv, "nt"); //                                                   (2)
  s.ropeForward(a.qkv, layout.positions, layout.ropeTable, shape.numHeads + shape.numKvHeads); // (3)
  attend(s, a.o, a.lse, a.qkv); //                                                             (4)
  s.matmul(t.branch, a.o, w.o, "nt"); //                                                       (5)
  s.addRmsnormForward(t.normed, a.mid, a.rstd2, a.x, t.branch, w.postNorm, shape.rmsNormEps); // (6)
  s.matmul(a.gateUp, t.normed, w.gateUp, "nt"); //                                             (7)
}

/**
 * `d` (T, C) holds the gradient of the block's output and becomes that of its input; dW +=. The gradient of a
 * matrix's input comes before that of its weight: on the way back the norm, or SwiGLU, overwrites it with the
 * input itself, which the weight's gradient needs.
 */
export function llamaBackward(
  s: Stream,
  shape: ModelShape,
  d: Tensor,
  dW: LlamaBlock,
  w: LlamaBlock,
  a: LlamaActivations,
  t: LlamaScratch & LlamaBackwardScratch,
  layout: Layout,
): void {
  const { numHeads: H, numKvHeads: K } = shape;
  const { normed, hidden } = t;
  s.matmul(hidden, d, w.down, "nn"); //                                               undo (9), input
  s.swigluBackward(a.gateUp, hidden, hidden, a.gateUp); //                            undo (8)
  s.matmulAdd(dW.down, d, hidden, "tn"); //                                           undo (9), weight
  s.matmul(normed, a.gateUp, w.gateUp, "nn"); //                                      undo (7), input
  s.rmsnormBackwardAdd(d, normed, dW.postNorm, normed, a.mid, w.postNorm, a.rstd2); // undo (6)
  s.matmulAdd(dW.gateUp, a.gateUp, normed, "tn"); //                                  undo (7), weight
  s.matmul(t.dO, d, w.o, "nn"); //                                                    undo (5), input
  s.matmulAdd(dW.o, d, a.o, "tn"); //                                                 undo (5), weight
  s.attentionBackward(t.dQkv, t.delta, t.dO, a.o, a.lse, a.qkv, layout.segments, H, K); // undo (4)
  s.ropeBackward(t.dQkv, layout.positions, layout.ropeTable, H + K); //               undo (3)
  s.matmul(normed, t.dQkv, w.qkv, "nn"); //                                           undo (2), input
  s.rmsnormBackwardAdd(d, normed, dW.inputNorm, normed, a.x, w.inputNorm, a.rstd1); // undo (1)
  s.matmulAdd(dW.qkv, t.dQkv, normed, "tn"); //                                       undo (2), weight
}
