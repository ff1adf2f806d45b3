import path from "node:path";
import { CheckpointError } from "../errors.js";
import { type DType, type Stream, sizeOf, type Tensor, type Window } from "../native/index.js";
import type { TensorSource } from "./piece-source.js";
import type { TensorPiece } from "./pieces.js";
import type { SafetensorsDtype, TensorEntry } from "./safetensors.js";
import { SafetensorsWriter } from "./safetensors-writer.js";
import { planShards } from "./shards.js";

/** Elements of a checkpoint tensor and the memory that holds them. */
export interface StoredPiece extends TensorPiece {
  /** Each dense; written from its element `at` on when loading, the first one read when saving. */
  readonly tensors: readonly Tensor[];
}

/** How a file is written. */
export interface SaveOptions {
  readonly dtype: DType;
  /** true: as flat pieces of tensors, which an index puts together. Default: as whole tensors. */
  readonly pieces?: boolean;
}

const DTYPE_OF: Partial<Record<SafetensorsDtype, DType>> = { F32: "f32", BF16: "bf16", F16: "f16" };
const NAME_OF = { f32: "F32", bf16: "BF16", f16: "F16", i32: "I32" } as const;

/** Bytes of the staging tensor through which weights pass on their way to or from a file. */
export const STAGING_BYTES = 16 << 20;

/**
 * Moves tensors between files and device memory in pieces of the staging tensor, so that no model is ever
 * whole in host memory. @param staging (n) f32 that the caller owns.
 */
export class WeightMover {
  readonly #s: Stream;
  readonly #staging: Tensor;
  readonly #host: Uint8Array;
  readonly #views = new Map<DType, Window>();

  constructor(s: Stream, staging: Tensor) {
    this.#s = s;
    this.#staging = staging;
    this.#host = new Uint8Array(staging.bytes);
  }

  /**
   * Reads every target from the file, converted to the dtypes it is kept in. Targets without elements are checked
   * as the others are.
   *
   * @param ignore names that may be in the file without a target.
   * @throws CheckpointError for a missing, extra or misshaped tensor or one that holds no floats; all tensors
   *   are checked before the first is read.
   */
  async load(
    source: TensorSource,
    targets: readonly StoredPiece[],
    where = source.where,
    ignore: (name: string) => boolean = () => false,
  ): Promise<void> {
    checkTensors(source, targets, where, ignore);
    for (const target of targets) {
      const dtype = DTYPE_OF[source.info(target.name).dtype]!;
      await this.#steps(target, dtype, async (staged, byteOffset, windows) => {
        const bytes = this.#host.subarray(0, staged.bytes);
        await source.read(target.name, byteOffset, bytes.length, bytes);
        this.#s.write(staged, bytes);
        for (const window of windows) this.#s.convert(window, staged);
        await this.#s.done(); // a queue of pieces would be the whole model in host memory
      });
    }
  }

  /**
   * Writes whole tensors as `dtype` to `folder`, in shards where transformers makes some. Returns the files
   * and the content of their index, which the caller writes last.
   */
  async save(
    folder: string,
    sources: readonly StoredPiece[],
    dtype: DType,
    maxShardBytes = 5e9,
  ): Promise<{ files: string[]; index: object | undefined }> {
    const byName = new Map(sources.map((source) => [source.name, source]));
    const plan = planShards(
      sources.map((source) => fileEntry(source, { dtype })),
      maxShardBytes,
    );
    const files: string[] = [];
    for (const shard of plan.shards) {
      const file = path.join(folder, shard.file);
      const members = shard.entries.map(({ name }) => byName.get(name)!);
      await this.saveFile(file, members, { dtype });
      files.push(file);
    }
    return { files, index: plan.index };
  }

  /** Writes the tensors to one file, which appears complete or not at all. */
  async saveFile(
    file: string,
    sources: readonly StoredPiece[],
    options: SaveOptions,
  ): Promise<void> {
    const entries = sources.map((source) => fileEntry(source, options));
    const writer = await SafetensorsWriter.create(file, entries);
    try {
      for (const source of sources) await this.write(writer, source, options.dtype);
      await writer.finish();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  /** Appends a tensor, or a piece of it, to a file. */
  async write(writer: SafetensorsWriter, source: StoredPiece, dtype: DType): Promise<void> {
    await this.#steps(source, dtype, async (staged, _, windows) => {
      this.#s.convert(staged, windows[0]!);
      const bytes = this.#host.subarray(0, staged.bytes);
      await this.#s.readInto(staged, bytes);
      await writer.write(source.name, bytes);
    });
  }

  /** Runs `move` on as many elements as fit into the staging tensor; `byteOffset` is that in the whole tensor. */
  async #steps(
    { begin, end, at, tensors }: StoredPiece,
    dtype: DType,
    move: (staged: Tensor, byteOffset: number, windows: Window[]) => Promise<void>,
  ): Promise<void> {
    const step = this.#staging.bytes / sizeOf(dtype);
    for (let from = begin; from < end; from += step) {
      const count = Math.min(step, end - from);
      const windows = tensors.map((t) => flatWindow(t).set(at + from - begin, count));
      await move(this.#view(dtype).set(0, count), from * sizeOf(dtype), windows);
    }
  }

  #view(dtype: DType): Window {
    let view = this.#views.get(dtype);
    if (!view) {
      const elements = this.#staging.bytes / sizeOf(dtype);
      view = this.#staging.view([elements], { dtype }).window();
      this.#views.set(dtype, view);
    }
    return view;
  }
}

/** Kept from save to save: a handle of the addon lives as long as the memory it looks at. */
const windows = new WeakMap<Tensor, Window>();

/** All elements of a tensor in one row. */
function flatWindow(tensor: Tensor): Window {
  let window = windows.get(tensor);
  if (!window) {
    const flat = tensor.shape.length === 1 ? tensor : tensor.view([tensor.size]);
    window = flat.window();
    windows.set(tensor, window);
  }
  return window;
}

/** What a file says of a tensor, or of a piece of it. */
export function fileEntry(
  { name, shape, begin, end }: TensorPiece,
  { dtype, pieces = false }: SaveOptions,
): TensorEntry {
  return { name, shape: pieces ? [end - begin] : [...shape], dtype: NAME_OF[dtype] };
}

function checkTensors(
  source: TensorSource,
  targets: readonly StoredPiece[],
  where: string,
  ignore: (name: string) => boolean,
): void {
  const problems: string[] = [];
  const wanted = new Set(targets.map(({ name }) => name));
  for (const { name, shape } of targets) {
    if (!source.has(name)) {
      problems.push(`tensor "${name}" is missing`);
      continue;
    }
    const info = source.info(name);
    if (info.shape.join() !== shape.join()) {
      problems.push(
        `tensor "${name}" has shape [${info.shape.join(", ")}], expected [${shape.join(", ")}]`,
      );
    } else if (DTYPE_OF[info.dtype] === undefined) {
      problems.push(`tensor "${name}" has dtype ${info.dtype}, expected F32, BF16 or F16`);
    }
  }
  for (const name of source.names()) {
    if (!wanted.has(name) && !ignore(name))
      problems.push(`tensor "${name}" is not part of the model`);
  }
  if (problems.length === 0) return;
  const shown = problems.slice(0, 5).join("; ");
  const more = problems.length > 5 ? `; and ${problems.length - 5} more` : "";
  throw new CheckpointError(`${where}: ${shown}${more}`, {
    hint: "config.json and the weights must belong to the same model",
  });
}
