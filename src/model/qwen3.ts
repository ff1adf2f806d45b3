import { blockParameters, edgeParameters } from "./decoder-parameters.js";
import { type Family, readDecoder } from "./family.js";
import { qwenDefaults, qwenWindow } from "./qwen2.js";
import { ConfigReader } from "./shape.js";

/** Qwen 3, dense: no biases, a norm of each query and key head before the rotation [Yang et al. 2025]. */
export const qwen3: Family = {
  modelType: "qwen3",
  readShape: (raw) => {
    const config = new ConfigReader(raw, { ...qwenDefaults, head_dim: 128 });
    config.neutral("attention_bias", [false]);
    return readDecoder(config, {
      family: "qwen3",
      qkvBias: false,
      qkNorm: true,
      slidingWindow: qwenWindow(config),
    });
  },
  block: blockParameters,
  edge: edgeParameters,
};
