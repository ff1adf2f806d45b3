import { blockParameters, edgeParameters } from "./decoder-parameters.js";
import { type Family, readDecoder, sharedWindow } from "./family.js";
import { ConfigReader } from "./shape.js";

/** Mistral 7B and Nemo: Llama with a sliding window in all layers, or in none [Jiang et al. 2023]. */
export const mistral: Family = {
  modelType: "mistral",
  readShape: (raw) => {
    const config = new ConfigReader(raw, {
      num_key_value_heads: 8,
      max_position_embeddings: 131072,
      sliding_window: 4096, // of version 0.1; later versions write null
      max_window_layers: 0,
    });
    for (const name of ["attention_bias", "use_sliding_window"]) config.neutral(name, [false]);
    const inUse = config.get("sliding_window") !== undefined;
    const window = inUse ? config.count("sliding_window") : null;
    // transformers does not look at layer_types: what contradicts sliding_window belongs to another model.
    if (sharedWindow(config, window) !== window)
      throw config.error("layer_types", 'all "sliding_attention"', config.get("layer_types"));
    return readDecoder(config, {
      family: "mistral",
      qkvBias: false,
      qkNorm: false,
      slidingWindow: window,
    });
  },
  block: blockParameters,
  edge: edgeParameters,
};
