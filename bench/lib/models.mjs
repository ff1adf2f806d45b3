/**
 * The models of the benchmark: shapes, lengths of their pairs, pairs per optimizer step.
 *
 * `prompt` and `response` are lengths in tokens, BOS or EOS included: {mean, least, most} of a lognormal
 * distribution, cut at both ends. A step is `batch` × `accumulation` pairs.
 */

/**
 * @typedef {object} Lengths
 * @property {number} mean
 * @property {number} least
 * @property {number} most
 *
 * @typedef {object} BenchModel
 * @property {string} name
 * @property {string} title
 * @property {number} hiddenSize
 * @property {number} numLayers
 * @property {number} numHeads
 * @property {number} numKvHeads
 * @property {number} intermediateSize
 * @property {number} vocabSize
 * @property {boolean} tied
 * @property {Lengths} prompt
 * @property {Lengths} response
 * @property {number} batch
 * @property {number} accumulation
 * @property {number} maxLength
 * @property {"bf16" | "f32"} dtype
 * @property {readonly string[]} peers loops of torch_peer.py that are compared when none are named
 */

/** @type {Readonly<Record<string, BenchModel>>} */
export const models = {
  "135m": {
    name: "135m",
    title: "SmolLM2-135M shape",
    hiddenSize: 576,
    numLayers: 30,
    numHeads: 9,
    numKvHeads: 3,
    intermediateSize: 1536,
    vocabSize: 49152,
    tied: true,
    prompt: { mean: 180, least: 16, most: 1024 },
    response: { mean: 220, least: 8, most: 1024 },
    batch: 2,
    accumulation: 4,
    maxLength: 2048,
    dtype: "bf16",
    peers: ["trl-bf16", "prefix-bf16"],
  },
  m15: {
    name: "m15",
    title: "a model of 8M parameters",
    hiddenSize: 288,
    numLayers: 6,
    numHeads: 6,
    numKvHeads: 6,
    intermediateSize: 768,
    vocabSize: 8192,
    tied: true,
    prompt: { mean: 100, least: 16, most: 512 },
    response: { mean: 120, least: 8, most: 512 },
    batch: 4,
    accumulation: 4,
    maxLength: 1024,
    dtype: "f32",
    peers: ["trl-fp32"],
  },
  tiny: {
    name: "tiny",
    title: "a model of 160k parameters",
    hiddenSize: 64,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    intermediateSize: 176,
    vocabSize: 512,
    tied: false,
    prompt: { mean: 40, least: 8, most: 128 },
    response: { mean: 48, least: 4, most: 128 },
    batch: 8,
    accumulation: 4,
    maxLength: 256,
    dtype: "f32",
    peers: ["trl-fp32"],
  },
};

const gpuLengths = {
  prompt: { mean: 400, least: 16, most: 1024 },
  response: { mean: 300, least: 8, most: 1024 },
  maxLength: 2048,
  dtype: /** @type {const} */ ("bf16"),
  peers: [],
};

/** What a GPU is for, beside 135m: shapes of Llama-3.2-1B and Llama-3-8B. @type {Readonly<Record<string, BenchModel>>} */
export const gpuModels = {
  "1b": {
    ...gpuLengths,
    name: "1b",
    title: "Llama-3.2-1B shape",
    hiddenSize: 2048,
    numLayers: 16,
    numHeads: 32,
    numKvHeads: 8,
    intermediateSize: 8192,
    vocabSize: 128256,
    tied: true,
    batch: 8,
    accumulation: 1,
  },
  "8b": {
    ...gpuLengths,
    name: "8b",
    title: "Llama-3-8B shape",
    hiddenSize: 4096,
    numLayers: 32,
    numHeads: 32,
    numKvHeads: 8,
    intermediateSize: 14336,
    vocabSize: 128256,
    tied: false,
    batch: 8,
    accumulation: 1,
  },
};

/** Ids with a meaning; all others are random. */
export const special = { pad: 0, bos: 1, eos: 2, firstFree: 3 };

/**
 * Pairs of one optimizer step.
 * @param {BenchModel} model
 */
export function pairsPerStep(model) {
  return model.batch * model.accumulation;
}

/**
 * Contents of config.json.
 * @param {BenchModel} model
 */
export function configJson(model) {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: model.vocabSize,
    hidden_size: model.hiddenSize,
    intermediate_size: model.intermediateSize,
    num_hidden_layers: model.numLayers,
    num_attention_heads: model.numHeads,
    num_key_value_heads: model.numKvHeads,
    head_dim: model.hiddenSize / model.numHeads,
    hidden_act: "silu",
    max_position_embeddings: model.maxLength,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: model.tied,
    pad_token_id: special.pad,
    bos_token_id: special.bos,
    eos_token_id: special.eos,
    torch_dtype: "bfloat16",
  };
}
