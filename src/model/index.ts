import { CheckpointError } from "../errors.js";
import { readLlamaConfig } from "./llama.js";
import type { ModelShape, RawConfig } from "./shape.js";

export * from "./head.js";
export * from "./llama.js";
export * from "./parameters.js";
export { ropeTable } from "./rope.js";
export type { ModelShape, RawConfig } from "./shape.js";

/** Model families by `model_type`: a new one is a file and a line here. */
const families: Readonly<Record<string, (raw: RawConfig) => ModelShape>> = {
  llama: readLlamaConfig,
};

/** @throws CheckpointError for an unknown `model_type` or a field whose arithmetic is not supported. */
export function readModelShape(raw: RawConfig): ModelShape {
  const type = raw.fields.model_type;
  const read = typeof type === "string" ? families[type] : undefined;
  if (!read) {
    const known = Object.keys(families).join(", ");
    throw new CheckpointError(
      `${raw.path}: model_type: expected one of ${known}, received ${JSON.stringify(type)}`,
    );
  }
  return read(raw);
}

/** Number of trained parameters; a tied head counts once. */
export function parameterCount(shape: ModelShape): number {
  const { hiddenSize: C, intermediateSize: F, headDim: D, vocabSize: V } = shape;
  const attention = C * D * (2 * shape.numHeads + 2 * shape.numKvHeads);
  const block = attention + 3 * C * F + 2 * C;
  return shape.numLayers * block + V * C * (shape.tiedEmbeddings ? 1 : 2) + C;
}
