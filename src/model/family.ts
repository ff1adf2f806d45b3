import type { BlockSpec } from "./parameters.js";
import { readRope } from "./rope-config.js";
import type { ConfigReader, ModelShape, RawConfig } from "./shape.js";

/** A model family: how its `config.json` is read and what its tensors are called. */
export interface Family {
  /** The config's `model_type`. */
  readonly modelType: string;
  /** @throws CheckpointError for a field whose arithmetic is not supported. */
  readonly readShape: (raw: RawConfig) => ModelShape;
  /** Parameters of a layer. */
  readonly block: (shape: ModelShape, layer: number) => BlockSpec;
  /** Embedding, final norm and head. */
  readonly edge: (shape: ModelShape) => BlockSpec;
}

/** Fields of related architectures that change the arithmetic and that nothing here computes. */
const unsupported = [
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

/** What a family says of itself besides the fields that all families share. */
export type FamilyTraits = Pick<ModelShape, "family" | "qkvBias" | "qkNorm" | "slidingWindow">;

/** Reads the fields that mean the same in every family. */
export function readDecoder(config: ConfigReader, traits: FamilyTraits): ModelShape {
  config.neutral("hidden_act", ["silu", "swish"]);
  config.neutral("mlp_bias", [false]);
  config.neutral("attention_dropout", [0]); // training would draw lots
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
    ...traits,
    hiddenSize,
    numHeads,
    numKvHeads,
    headDim,
    numLayers: config.count("num_hidden_layers"),
    intermediateSize: config.count("intermediate_size"),
    vocabSize: config.count("vocab_size"),
    rmsNormEps: config.positive("rms_norm_eps", 1e-6),
    ...readRope(config),
    tiedEmbeddings: config.flag("tie_word_embeddings", false),
  };
}

/**
 * The window of families whose layers may differ in it (`layer_types`, or `max_window_layers` full ones below
 * the others): null where all layers see everything.
 *
 * @param window what a layer with a window sees, null where the config turns windows off
 * @throws CheckpointError where only some of the layers have the window.
 */
export function sharedWindow(config: ConfigReader, window: number | null): number | null {
  const types = config.get("layer_types");
  if (types === undefined) {
    if (window === null) return null;
    const layers = config.count("num_hidden_layers");
    const full = config.get("max_window_layers");
    if (full === 0) return window;
    if (typeof full === "number" && full >= layers) return null;
    throw config.error(
      "max_window_layers",
      `0 or at least ${layers} (num_hidden_layers): a window in some layers only is not supported`,
      full,
    );
  }
  const known = new Set(Array.isArray(types) ? types : [types]);
  if (known.size === 1 && known.has("full_attention")) return null;
  if (known.size === 1 && known.has("sliding_attention") && window !== null) return window;
  throw config.error(
    "layer_types",
    'all "full_attention", or all "sliding_attention" with a sliding_window that is in use',
    types,
  );
}
