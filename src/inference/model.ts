import { readConfigFile } from "../checkpoint/model-directory.js";
import { ConfigError } from "../errors.js";
import { checkPositions, type ModelShape, readModelShape } from "../model/index.js";
import type { DeviceName } from "../native/index.js";
import type { BatchLimits } from "../train/buffers.js";
import { loadWeights } from "../train/model-source.js";
import { modelBlocks } from "../train/plan.js";
import { ResidentModel } from "../train/resident-model.js";
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

/** Where and how a model computes. */
export interface ModelOptions {
  /** Default: the best device present. */
  readonly device?: DeviceName;
  /** Compute threads; default: the cores this process may use. */
  readonly threads?: number;
  /** bf16 weights and activations; default f32. */
  readonly bf16?: boolean;
}

/** Where and how a forward pass runs. Of a loaded model, {@link ModelOptions} are decided already. */
export interface InferenceOptions extends ModelOptions {
  /** When aborted, the iteration throws its reason before the next forward pass. */
  readonly signal?: AbortSignal;
}

/** Weights of the sources that keep them, until they are disposed. */
const kept = new WeakMap<ModelSource, ResidentModel | "disposed">();

/** Reads the weights of a source for all that is done with it, until {@link disposeModel}. */
export async function keepWeights(source: ModelSource, options: ModelOptions): Promise<void> {
  kept.set(source, await readWeights(source, options));
}

/** Frees what {@link keepWeights} read; what still runs ends with an error. */
export function disposeModel(source: ModelSource): void {
  const model = kept.get(source);
  if (model !== undefined && model !== "disposed") model.dispose();
  kept.set(source, "disposed");
}

/**
 * Runs forward passes of at most `tokens` tokens and `sequences` sequences at a time, with the source's own
 * weights, or with weights that are read now and freed at the end.
 *
 * @throws ConfigError for a model that was disposed, or that is asked to compute in another way than it was
 *   loaded for; for sequences that its rope scaling does not reach.
 */
export async function* withSession<T>(
  source: ModelSource,
  size: { readonly tokens: number; readonly sequences: number; readonly positions: number },
  options: ModelOptions,
  work: (session: Session) => AsyncGenerator<T>,
): AsyncGenerator<T> {
  const { shape } = source;
  checkPositions(shape, size.positions, "the longest sequence");
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
  const own = keptWeights(source, options);
  const model = own ?? (await readWeights(source, options));
  let session: Session | undefined;
  try {
    session = new Session(model, { limits });
    yield* work(session);
  } finally {
    session?.dispose();
    if (!own) model.dispose();
  }
}

function keptWeights(source: ModelSource, options: ModelOptions): ResidentModel | undefined {
  const model = kept.get(source);
  if (model === undefined) return undefined;
  if (model === "disposed") {
    throw new ConfigError(`the model ${source.dir} was disposed, expected one that is loaded`, {
      hint: "call dispose() once nothing more is asked of the model, or load it again",
    });
  }
  for (const name of ["device", "threads", "bf16"] as const) {
    if (options[name] === undefined) continue;
    throw new ConfigError(
      `${name}: the model ${source.dir} is loaded already, so ${String(options[name])} comes too late`,
      { hint: `give ${name} to loadModel()` },
    );
  }
  return model;
}

/** The weights of a source on a device. The caller disposes them. */
export async function readWeights(
  source: ModelSource,
  options: ModelOptions,
): Promise<ResidentModel> {
  const { device = "auto", threads, bf16 = false } = options;
  const model = new ResidentModel({
    device,
    ...(threads ? { threads } : {}),
    shape: source.shape,
    blocks: modelBlocks(source.shape),
    dtype: bf16 ? "bf16" : "f32",
    training: false,
  });
  try {
    await loadWeights(model, source.dir);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}
