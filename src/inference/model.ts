import { readConfigFile } from "../checkpoint/model-directory.js";
import { type ModelShape, readModelShape } from "../model/index.js";
import type { DeviceName } from "../native/index.js";
import type { BatchLimits } from "../train/buffers.js";
import { loadModel } from "../train/model-source.js";
import { modelBlocks } from "../train/plan.js";
import { Session } from "../train/session.js";

/** Logits of generation and scoring are computed this many bytes at a time, at most. */
const LOGITS_BYTES = 64 << 20;

/** A model directory opened for reading: its sizes and where it lies. */
export interface ModelSource {
  /** The directory. */
  readonly dir: string;
  /** Sizes of the model. */
  readonly shape: ModelShape;
  /** Content of config.json. */
  readonly config: Readonly<Record<string, unknown>>;
}

/**
 * Reads the config of a model directory; no tokenizer, no weights yet.
 *
 * @param dir model directory in Hugging Face format
 * @throws CheckpointError when the directory is no model of a supported family.
 */
export async function readModel(dir: string): Promise<ModelSource> {
  const file = await readConfigFile(dir);
  return { dir, shape: readModelShape(file), config: file.fields };
}

/** Where and how a forward pass runs. */
export interface InferenceOptions {
  /** Default: the best device present. */
  readonly device?: DeviceName;
  /** Compute threads; default: the cores this process may use. */
  readonly threads?: number;
  /** bf16 weights and activations; default f32. */
  readonly bf16?: boolean;
  /** When aborted, the iteration throws its reason before the next forward pass. */
  readonly signal?: AbortSignal;
}

/**
 * A model ready for forward passes of at most `tokens` tokens and `sequences` sequences at a time.
 * The caller disposes it.
 */
export async function openModel(
  source: ModelSource,
  size: { readonly tokens: number; readonly sequences: number; readonly positions: number },
  options: InferenceOptions,
): Promise<Session> {
  const { shape } = source;
  const rows = Math.floor(LOGITS_BYTES / (4 * shape.vocabSize) / 32) * 32;
  const limits: BatchLimits = {
    tokens: Math.ceil(size.tokens / 16) * 16,
    scored: size.tokens,
    examples: size.sequences,
    stepExamples: size.sequences,
    groupRows: Math.max(32, rows),
    positions: size.positions,
    pairs: false,
  };
  const session = new Session({
    device: options.device ?? "auto",
    ...(options.threads ? { threads: options.threads } : {}),
    shape,
    blocks: modelBlocks(shape),
    dtype: options.bf16 ? "bf16" : "f32",
    limits,
    training: false,
  });
  try {
    await loadModel(session, source.dir, shape.tiedEmbeddings);
    return session;
  } catch (error) {
    session.dispose();
    throw error;
  }
}
