import { blockParameters, edgeParameters } from "./decoder-parameters.js";
import { type Family, readDecoder, sharedWindow } from "./family.js";
import { ConfigReader } from "./shape.js";

/** What transformers takes for absent fields of Qwen 2 and 3. */
export const qwenDefaults = {
  num_key_value_heads: 32,
  max_position_embeddings: 32768,
  use_sliding_window: false,
  sliding_window: 4096,
  max_window_layers: 28,
};

/** The window of all layers, null with `use_sliding_window: false`, whatever `sliding_window` says. */
export function qwenWindow(config: ConfigReader): number | null {
  const inUse =
    config.flag("use_sliding_window", false) && config.get("sliding_window") !== undefined;
  return sharedWindow(config, inUse ? config.count("sliding_window") : null);
}

/** Qwen 2 and 2.5: biases of the query, key and value projections [Yang et al. 2024]. */
export const qwen2: Family = {
  modelType: "qwen2",
  readShape: (raw) => {
    const config = new ConfigReader(raw, qwenDefaults);
    return readDecoder(config, {
      family: "qwen2",
      qkvBias: true,
      qkNorm: false,
      slidingWindow: qwenWindow(config),
    });
  },
  block: blockParameters,
  edge: edgeParameters,
};
