import {
  decoderActivations,
  decoderBackwardScratch,
  decoderScratch,
  type ModelShape,
  type RowSpec,
} from "../model/index.js";
import { type Arena, alignedBytes, type Device, type DType, type Tensor } from "../native/index.js";

/** How long memory lives: the groups of the memory table, one arena each. */
export type Lifetime = "activations" | "backward scratch" | "head" | "batch" | "metrics";

/** One tensor of a run, known before anything is allocated. */
export interface BufferSpec {
  readonly lifetime: Lifetime;
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** The largest sizes a micro-batch of the run can have. */
export interface BatchLimits {
  /** T, rounded up to the token bucket. */
  readonly tokens: number;
  /** Scored rows, before padding; a row that both branches of a pair gather counts twice. */
  readonly scored: number;
  /** Examples in one micro-batch. */
  readonly examples: number;
  /** Examples in one optimizer step, or one round of an evaluation. */
  readonly stepExamples: number;
  /** Rows of one logits group. */
  readonly groupRows: number;
  /** Positions of the RoPE table. */
  readonly positions: number;
  /** Whether examples are pairs (two responses) or single sequences. */
  readonly pairs: boolean;
}

/** Token counts are rounded up to this, so that at most about 64 GEMM shapes per layer occur. */
export function tokenBucket(maxTokens: number): number {
  return Math.max(16, Math.ceil(maxTokens / 64 / 16) * 16);
}

/** Rows of a padded gather list, at most: groups end on multiples of 32 and two neighbours overflow one. */
export function scoredLimit({ scored, examples, pairs, groupRows }: BatchLimits): number {
  const responses = examples * (pairs ? 2 : 1);
  const groups = Math.min(responses, 2 * Math.ceil(scored / groupRows) + 2);
  return Math.ceil((scored + 31 * groups) / 32) * 32;
}

/** Every buffer of the layer walk, in the order it is first used. */
export function passBuffers(
  shape: ModelShape,
  dtype: DType,
  limits: BatchLimits,
  mode: { readonly training: boolean; readonly checkpointing: boolean },
): BufferSpec[] {
  const { tokens: T, examples, stepExamples, groupRows, positions, pairs } = limits;
  const { hiddenSize: C, vocabSize: V } = shape;
  const N = scoredLimit(limits);
  const R = examples * (pairs ? 2 : 1);
  const specs: BufferSpec[] = [];
  const add = (lifetime: Lifetime, name: string, type: DType, ...extents: number[]) =>
    specs.push({ lifetime, name, dtype: type, shape: extents });
  const rows = (lifetime: Lifetime, prefix: string, table: Record<string, RowSpec>) => {
    for (const [name, { dtype: type, row }] of Object.entries(table)) {
      add(lifetime, `${prefix}${name}`, type === "x" ? dtype : type, T, ...row);
    }
  };

  add("batch", "tokens", "i32", T);
  add("batch", "positions", "i32", T);
  add("batch", "segments", "i32", T, 4);
  add("batch", "uniqueTokens", "i32", T);
  add("batch", "tokenOffsets", "i32", T + 1);
  add("batch", "tokenRows", "i32", T);
  add("batch", "scoredRows", "i32", N);
  add("batch", "scoredLabels", "i32", N);
  add("batch", "rowSources", "i32", T, 2);
  add("batch", "responses", "i32", R, 3);
  add("batch", "tokenWeights", "f32", R);
  add("batch", "ropeTable", "f32", positions, shape.headDim);

  const { x, ...rest } = decoderActivations(shape);
  // Without a backward one set serves all layers; with checkpointing each layer keeps only its input.
  const inputs = mode.training ? shape.numLayers : 1;
  const sets = mode.training && !mode.checkpointing ? shape.numLayers : 1;
  for (let l = 0; l < inputs; l++) rows("activations", `layer.${l}.`, { x });
  for (let l = 0; l < sets; l++) rows("activations", `layer.${l}.`, rest);
  rows("activations", "scratch.", decoderScratch(shape));
  add("activations", "last", dtype, T, C);
  add("activations", "lastRstd", "f32", T);
  add("activations", "final", dtype, T, C);

  add("head", "scored", dtype, N, C);
  add("head", "logits", "f32", groupRows, V);
  add("head", "logp", "f32", N);
  add("head", "lse", "f32", N);
  add("head", "coefficient", "f32", N);
  if (mode.training) {
    add("head", "dScored", dtype, N, C);
    rows("backward scratch", "scratch.", decoderBackwardScratch(shape));
    add("backward scratch", "dResidual", dtype, T, C);
    add("backward scratch", "dFinal", dtype, T, C);
  }
  const stepResponses = Math.max(R, stepExamples * (pairs ? 2 : 1));
  add("metrics", "means", "f32", stepResponses);
  // One more: whether a rank has been asked to stop.
  add("metrics", "losses", "f32", stepResponses + 1);
  return specs;
}

/**
 * Bytes of a cache of keys and values: (rows, K·D) twice for every layer, and where the tokens of a forward pass
 * stand in it.
 */
export function kvCacheBytes(
  shape: ModelShape,
  dtype: DType,
  rows: number,
  tokens: number,
): number {
  const cache = [Math.max(1, rows), shape.numKvHeads * shape.headDim];
  return (
    2 * shape.numLayers * alignedBytes(dtype, cache) +
    alignedBytes("i32", [tokens]) +
    alignedBytes("i32", [tokens, 2])
  );
}

/** Bytes of buffers, alignment included. */
export function bufferBytes(specs: readonly BufferSpec[]): number {
  return specs.reduce((sum, spec) => sum + alignedBytes(spec.dtype, spec.shape), 0);
}

/** Buffers by name, in one arena. */
export class Buffers {
  readonly arena: Arena;
  readonly #tensors = new Map<string, Tensor>();

  /** @throws MemoryError when they do not fit. */
  constructor(device: Device, specs: readonly BufferSpec[], name: string) {
    this.arena = device.arena(bufferBytes(specs), name);
    for (const spec of specs)
      this.#tensors.set(spec.name, this.arena.tensor(spec.dtype, spec.shape));
  }

  tensor(name: string): Tensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new Error(`buffer "${name}" is not in the plan`);
    return tensor;
  }

  entries(): [Tensor, string][] {
    return [...this.#tensors].map(([name, tensor]) => [tensor, name]);
  }

  dispose(): void {
    this.arena.dispose();
  }
}
