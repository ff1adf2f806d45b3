import {
  type BlockSpec,
  matrix,
  type ParameterSpec,
  type Parameters,
  vector,
} from "./parameters.js";
import type { ModelShape } from "./shape.js";

/**
 * qkv ((H+2K)·D, C) · o (C, H·D) · gateUp (2F, C) · down (C, F) · inputNorm, postNorm (C); where the shape
 * says so, qkvBias ((H+2K)·D) and qNorm, kNorm (D).
 */
export type DecoderBlock = Parameters<
  "qkv" | "o" | "gateUp" | "down" | "inputNorm" | "postNorm" | "qkvBias" | "qNorm" | "kNorm"
>;

/** embedding (V, C) · head (V, C), the embedding itself when tied · norm (C). */
export type DecoderEdge = Parameters<"embedding" | "head" | "norm">;

/** Parameters of a layer under the names of transformers' Llama, which Mistral and Qwen share. */
export function blockParameters(shape: ModelShape, layer: number): BlockSpec {
  const { hiddenSize: C, intermediateSize: F, headDim: D } = shape;
  const name = (part: string, kind = "weight") => `model.layers.${layer}.${part}.${kind}`;
  const qkv = (kind: "weight" | "bias") => [
    { name: name("self_attn.q_proj", kind), rows: shape.numHeads * D },
    { name: name("self_attn.k_proj", kind), rows: shape.numKvHeads * D },
    { name: name("self_attn.v_proj", kind), rows: shape.numKvHeads * D },
  ];
  const vectors: ParameterSpec[] = [
    vector("inputNorm", [{ name: name("input_layernorm"), rows: C }]),
    vector("postNorm", [{ name: name("post_attention_layernorm"), rows: C }]),
  ];
  if (shape.qkvBias) vectors.push(vector("qkvBias", qkv("bias")));
  if (shape.qkNorm) {
    vectors.push(
      vector("qNorm", [{ name: name("self_attn.q_norm"), rows: D }]),
      vector("kNorm", [{ name: name("self_attn.k_norm"), rows: D }]),
    );
  }
  return {
    name: `layer ${layer}`,
    parameters: [
      matrix("qkv", C, qkv("weight")),
      matrix("o", shape.numHeads * D, [{ name: name("self_attn.o_proj"), rows: C }]),
      matrix("gateUp", C, [
        { name: name("mlp.gate_proj"), rows: F },
        { name: name("mlp.up_proj"), rows: F },
      ]),
      matrix("down", F, [{ name: name("mlp.down_proj"), rows: C }]),
      ...vectors,
    ],
  };
}

/** Embedding, final norm and, unless it is tied, the head. */
export function edgeParameters(shape: ModelShape): BlockSpec {
  const { hiddenSize: C, vocabSize: V } = shape;
  const head = matrix("head", C, [{ name: "lm_head.weight", rows: V }]);
  return {
    name: "embedding, final norm and head",
    parameters: [
      matrix("embedding", C, [{ name: "model.embed_tokens.weight", rows: V }]),
      ...(shape.tiedEmbeddings ? [] : [head]),
      vector("norm", [{ name: "model.norm.weight", rows: C }]),
    ],
  };
}
