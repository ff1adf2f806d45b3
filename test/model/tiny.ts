import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { SafetensorsWriter } from "#src/checkpoint/safetensors-writer.js";
import { random32 } from "#src/data/order.js";
import { fixture } from "../support/paths.js";

/** Sizes of a random Llama model; the vocabulary fits the tokenizer `llama3` of the data fixtures. */
export const tinyConfig = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 48,
  vocab_size: 645,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
  bos_token_id: 640,
  eos_token_id: 644,
  torch_dtype: "float32",
};

export type TinyConfig = typeof tinyConfig;

/** Names and shapes of the weights that a config asks for. */
export function weightShapes(config: TinyConfig): Map<string, number[]> {
  const { hidden_size: C, intermediate_size: F, vocab_size: V } = config;
  const D = C / config.num_attention_heads;
  const shapes = new Map<string, number[]>([["model.embed_tokens.weight", [V, C]]]);
  for (let l = 0; l < config.num_hidden_layers; l++) {
    const add = (name: string, ...shape: number[]) =>
      shapes.set(`model.layers.${l}.${name}.weight`, shape);
    add("input_layernorm", C);
    add("self_attn.q_proj", config.num_attention_heads * D, C);
    add("self_attn.k_proj", config.num_key_value_heads * D, C);
    add("self_attn.v_proj", config.num_key_value_heads * D, C);
    add("self_attn.o_proj", C, config.num_attention_heads * D);
    add("post_attention_layernorm", C);
    add("mlp.gate_proj", F, C);
    add("mlp.up_proj", F, C);
    add("mlp.down_proj", C, F);
  }
  shapes.set("model.norm.weight", [C]);
  if (!config.tie_word_embeddings) shapes.set("lm_head.weight", [V, C]);
  return shapes;
}

/** Seeded values: norms are 1, matrices uniform in ±0.1. */
export function randomWeights(config: TinyConfig, seed = 1): Map<string, Float32Array> {
  const next = random32(seed);
  const weights = new Map<string, Float32Array>();
  for (const [name, shape] of weightShapes(config)) {
    const count = shape.reduce((product, extent) => product * extent, 1);
    const value = shape.length === 1 ? () => 1 : () => (next() / 2 ** 32 - 0.5) * 0.2;
    weights.set(name, Float32Array.from({ length: count }, value));
  }
  return weights;
}

/** Writes f32 tensors as one safetensors file. */
export async function writeWeights(
  file: string,
  tensors: readonly (readonly [name: string, shape: readonly number[], values: Float32Array])[],
): Promise<void> {
  const entries = tensors.map(([name, shape]) => ({
    name,
    shape: [...shape],
    dtype: "F32" as const,
  }));
  const writer = await SafetensorsWriter.create(file, entries);
  for (const [name, , { buffer, byteOffset, byteLength }] of tensors) {
    await writer.write(name, new Uint8Array(buffer, byteOffset, byteLength));
  }
  await writer.finish();
}

/**
 * Writes a random model directory, with tokenizer and chat template unless told otherwise.
 * `change` may edit the weights before they are written.
 */
export async function makeTinyModel(
  dir: string,
  options: {
    readonly config?: Partial<TinyConfig>;
    readonly extra?: Readonly<Record<string, unknown>>;
    readonly tokenizer?: boolean;
    readonly seed?: number;
    readonly change?: (weights: Map<string, Float32Array>) => void;
  } = {},
): Promise<string> {
  const config = { ...tinyConfig, ...options.config };
  mkdirSync(dir, { recursive: true });
  writeFileSync(path.join(dir, "config.json"), JSON.stringify({ ...config, ...options.extra }));
  const weights = randomWeights(config, options.seed);
  options.change?.(weights);
  const shapes = weightShapes(config);
  const tensors = [...weights].map(([name, values]) => [name, shapes.get(name)!, values] as const);
  await writeWeights(path.join(dir, "model.safetensors"), tensors);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
    const from = fixture("data", "llama3", name);
    if (options.tokenizer !== false && existsSync(from)) copyFileSync(from, path.join(dir, name));
  }
  return dir;
}
