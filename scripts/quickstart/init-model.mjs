// Writes the base model before its training: a small Llama with random weights (seeded, f32) and the
// tokenizer beside it, under outputs/.
//
//   node scripts/quickstart/init-model.mjs
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { initDir, isMain, modelDir } from "./paths.mjs";
import { Random } from "./random.mjs";
import { specialTokens } from "./tokenizer.mjs";
import { VOCAB_SIZE } from "./train-tokenizer.mjs";

/** @typedef {{ shape: readonly number[], data: Float32Array }} Weight */

const hiddenSize = 128;
const headDim = 32;
const numHeads = 4;
const numKvHeads = 2;
const intermediateSize = 384;
const numLayers = 4;

/** Contents of config.json. */
export const config = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: VOCAB_SIZE,
  hidden_size: hiddenSize,
  intermediate_size: intermediateSize,
  num_hidden_layers: numLayers,
  num_attention_heads: numHeads,
  num_key_value_heads: numKvHeads,
  head_dim: headDim,
  hidden_act: "silu",
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  attention_bias: false,
  mlp_bias: false,
  tie_word_embeddings: true,
  bos_token_id: specialTokens.indexOf("<|bos|>"),
  eos_token_id: specialTokens.indexOf("<|end|>"),
  torch_dtype: "float32",
};

/** Contents of generation_config.json. */
const generationConfig = { bos_token_id: config.bos_token_id, eos_token_id: config.eos_token_id };

/**
 * Random weights under transformers' names; the head is tied to the embedding. A matrix has the
 * standard deviation 0.8/√(its inputs), not the usual 0.02, which is far too small for so few inputs
 * and makes the first third of the training a wait.
 * @returns {Map<string, Weight>}
 */
export function initialWeights() {
  const random = new Random(5);
  /** @type {Map<string, Weight>} */
  const weights = new Map();
  const normal = (
    /** @type {string} */ name,
    /** @type {number[]} */ shape,
    /** @type {number} */ std,
  ) => {
    const data = Float32Array.from({ length: shape[0] * shape[1] }, () => std * random.normal());
    weights.set(`model.${name}.weight`, { shape, data });
  };
  const matrix = (
    /** @type {string} */ name,
    /** @type {number} */ outputs,
    /** @type {number} */ inputs,
  ) => normal(name, [outputs, inputs], 0.8 / Math.sqrt(inputs));
  const norm = (/** @type {string} */ name) =>
    weights.set(`model.${name}.weight`, {
      shape: [hiddenSize],
      data: new Float32Array(hiddenSize).fill(1),
    });

  normal("embed_tokens", [VOCAB_SIZE, hiddenSize], 0.1);
  for (let l = 0; l < numLayers; l++) {
    norm(`layers.${l}.input_layernorm`);
    matrix(`layers.${l}.self_attn.q_proj`, numHeads * headDim, hiddenSize);
    matrix(`layers.${l}.self_attn.k_proj`, numKvHeads * headDim, hiddenSize);
    matrix(`layers.${l}.self_attn.v_proj`, numKvHeads * headDim, hiddenSize);
    matrix(`layers.${l}.self_attn.o_proj`, hiddenSize, numHeads * headDim);
    norm(`layers.${l}.post_attention_layernorm`);
    matrix(`layers.${l}.mlp.gate_proj`, intermediateSize, hiddenSize);
    matrix(`layers.${l}.mlp.up_proj`, intermediateSize, hiddenSize);
    matrix(`layers.${l}.mlp.down_proj`, hiddenSize, intermediateSize);
  }
  norm("norm");
  return weights;
}

/**
 * A safetensors file: header length (u64), JSON header, then the tensors one after another.
 * @param {ReadonlyMap<string, Weight>} tensors
 * @returns {Buffer}
 */
export function safetensors(tensors) {
  /** @type {Record<string, unknown>} */
  const header = { __metadata__: { format: "pt" } };
  const parts = [];
  let end = 0;
  for (const [name, { shape, data }] of tensors) {
    const bytes = Buffer.alloc(4 * data.length);
    for (const [i, x] of data.entries()) bytes.writeFloatLE(x, 4 * i);
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
    parts.push(bytes);
  }
  let json = JSON.stringify(header);
  json = json.padEnd(8 * Math.ceil(json.length / 8)); // the tensors start at a multiple of 8
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, Buffer.from(json, "latin1"), ...parts]);
}

if (isMain(import.meta.url)) {
  mkdirSync(initDir, { recursive: true });
  const json = (/** @type {unknown} */ value) => `${JSON.stringify(value, null, 2)}\n`;
  writeFileSync(path.join(initDir, "config.json"), json(config));
  writeFileSync(path.join(initDir, "generation_config.json"), json(generationConfig));
  writeFileSync(path.join(initDir, "model.safetensors"), safetensors(initialWeights()));
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    copyFileSync(path.join(modelDir, file), path.join(initDir, file));
  }
  console.log(`wrote ${initDir}`);
}
