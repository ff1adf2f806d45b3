import { CheckpointError } from "../errors.js";
import type { Family } from "./family.js";
import { llama } from "./llama.js";
import { mistral } from "./mistral.js";
import { qwen2 } from "./qwen2.js";
import { qwen3 } from "./qwen3.js";
import type { ModelShape, RawConfig } from "./shape.js";

export * from "./decoder.js";
export type { DecoderBlock, DecoderEdge } from "./decoder-parameters.js";
export * from "./head.js";
export * from "./parameters.js";
export * from "./rope.js";
export type { ModelShape, RawConfig } from "./shape.js";

/** Model families: a new one is a file and a line here. */
const families: readonly Family[] = [llama, mistral, qwen2, qwen3];

/** @throws CheckpointError for an unknown `model_type` or a field whose arithmetic is not supported. */
export function readModelShape(raw: RawConfig): ModelShape {
  const type = raw.fields.model_type;
  const family = families.find(({ modelType }) => modelType === type);
  if (!family) {
    const known = families.map(({ modelType }) => modelType).join(", ");
    throw new CheckpointError(
      `${raw.path}: model_type: expected one of ${known}, received ${JSON.stringify(type)}`,
      {
        hint: "SmolLM2 and Llama 2 to 3.2 are llama, Qwen 2.5 is qwen2; other architectures are not supported",
      },
    );
  }
  return family.readShape(raw);
}

/** The family of a shape that {@link readModelShape} made. */
export function familyOf(shape: ModelShape): Family {
  return families.find(({ modelType }) => modelType === shape.family)!;
}

/** Number of trained parameters; a tied head counts once. */
export function parameterCount(shape: ModelShape): number {
  const { hiddenSize: C, intermediateSize: F, headDim: D, vocabSize: V } = shape;
  const qkv = (shape.numHeads + 2 * shape.numKvHeads) * D;
  const attention = C * (qkv + shape.numHeads * D);
  const vectors = 2 * C + (shape.qkvBias ? qkv : 0) + (shape.qkNorm ? 2 * D : 0);
  const block = attention + 3 * C * F + vectors;
  return shape.numLayers * block + V * C * (shape.tiedEmbeddings ? 1 : 2) + C;
}
