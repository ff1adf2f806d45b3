import { blockParameters, edgeParameters } from "./decoder-parameters.js";
import { type Family, readDecoder, sharedWindow } from "./family.js";
import { ConfigReader } from "./shape.js";

/** Llama 2, 3, 3.1, 3.2 and what shares their architecture, SmolLM2 for one [Touvron et al. 2023]. */
export const llama: Family = {
  modelType: "llama",
  readShape: (raw) => {
    const config = new ConfigReader(raw, { max_position_embeddings: 2048 });
    for (const name of ["attention_bias", "use_sliding_window"]) config.neutral(name, [false]);
    config.neutral("sliding_window", []);
    sharedWindow(config, null);
    return readDecoder(config, {
      family: "llama",
      qkvBias: false,
      qkNorm: false,
      slidingWindow: null,
    });
  },
  block: blockParameters,
  edge: edgeParameters,
};
