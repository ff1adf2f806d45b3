import path from "node:path";
import { CheckpointError } from "../errors.js";
import { type DType, type Stream, sizeOf, type Tensor, type Window } from "../native/index.js";
import type { Safetensors, SafetensorsDtype, TensorEntry } from "./safetensors.js";
import { SafetensorsWriter } from "./safetensors-writer.js";
import { planShards } from "./shards.js";

/** A checkpoint tensor and where it lives: rows `[begin, begin + rows)` of a parameter. */
export interface StoredTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Written when loading, the first one read when saving: weights and their f32 masters. */
  readonly tensors: readonly Tensor[];
  readonly begin: number;
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
  readonly #windows = new Map<Tensor, Window>();
  readonly #views = new Map<string, Window>();

  constructor(s: Stream, staging: Tensor) {
    this.#s = s;
    this.#staging = staging;
    this.#host = new Uint8Array(staging.bytes);
  }

  /**
   * Reads every target from the file, converted to the dtypes it is kept in.
   *
   * @param ignore names that may be in the file without a target.
   * @throws CheckpointError for a missing, extra or misshaped tensor or one that holds no floats; all tensors
   *   are checked before the first is read.
   */
  async load(
    source: Safetensors,
    targets: readonly StoredTensor[],
    where: string,
    ignore: (name: string) => boolean = () => false,
  ): Promise<void> {
    checkTensors(source, targets, where, ignore);
    for (const target of targets) {
      const dtype = DTYPE_OF[source.info(target.name).dtype]!;
      await this.#pieces(target, dtype, async (staged, byteOffset, windows) => {
        const bytes = this.#host.subarray(0, staged.bytes);
        await source.read(target.name, byteOffset, bytes.length, bytes);
        this.#s.write(staged, bytes);
        for (const window of windows) this.#s.convert(window, staged);
        await this.#s.done(); // a queue of pieces would be the whole model in host memory
      });
    }
  }

  /**
   * Writes the tensors as `dtype` to `folder`, in shards where transformers makes some. Returns the files
   * and the content of their index, which the caller writes last.
   */
  async save(
    folder: string,
    sources: readonly StoredTensor[],
    dtype: DType,
    maxShardBytes = 5e9,
  ): Promise<{ files: string[]; index: object | undefined }> {
    const byName = new Map(sources.map((source) => [source.name, source]));
    const plan = planShards(
      sources.map((source) => entry(source, dtype)),
      maxShardBytes,
    );
    const files: string[] = [];
    for (const shard of plan.shards) {
      const file = path.join(folder, shard.file);
      const members = shard.entries.map(({ name }) => byName.get(name)!);
      await this.saveFile(file, members, dtype);
      files.push(file);
    }
    return { files, index: plan.index };
  }

  /** Writes the tensors as `dtype` to one file, which appears complete or not at all. */
  async saveFile(file: string, sources: readonly StoredTensor[], dtype: DType): Promise<void> {
    const writer = await SafetensorsWriter.create(
      file,
      sources.map((source) => entry(source, dtype)),
    );
    try {
      for (const source of sources) await this.#write(writer, source, dtype);
      await writer.finish();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  async #write(writer: SafetensorsWriter, source: StoredTensor, dtype: DType): Promise<void> {
    await this.#pieces(source, dtype, async (staged, _, windows) => {
      this.#s.convert(staged, windows[0]!);
      const bytes = this.#host.subarray(0, staged.bytes);
      await this.#s.readInto(staged, bytes);
      await writer.write(source.name, bytes);
    });
  }

  /** Runs `move` on runs of whole rows that fit into the staging tensor. */
  async #pieces(
    stored: StoredTensor,
    dtype: DType,
    move: (staged: Tensor, byteOffset: number, windows: Window[]) => Promise<void>,
  ): Promise<void> {
    const [rows, ...rest] = stored.shape as [number, ...number[]];
    const rowBytes = sizeOf(dtype) * rest.reduce((product, extent) => product * extent, 1);
    const step = Math.min(rows, Math.floor(this.#staging.bytes / rowBytes));
    if (step === 0) {
      throw new CheckpointError(
        `tensor "${stored.name}": a row of ${rowBytes} bytes does not fit into the staging memory of ${this.#staging.bytes}`,
      );
    }
    const view = this.#view(dtype, [step, ...rest]);
    for (let done = 0; done < rows; done += step) {
      const count = Math.min(step, rows - done);
      const windows = stored.tensors.map((t) => this.#window(t).set(stored.begin + done, count));
      await move(view.set(0, count), done * rowBytes, windows);
    }
  }

  #view(dtype: DType, shape: readonly number[]): Window {
    const key = `${dtype} ${shape.join("x")}`;
    let view = this.#views.get(key);
    if (!view) {
      view = this.#staging.view(shape, { dtype }).window();
      this.#views.set(key, view);
    }
    return view;
  }

  #window(tensor: Tensor): Window {
    let window = this.#windows.get(tensor);
    if (!window) {
      window = tensor.window();
      this.#windows.set(tensor, window);
    }
    return window;
  }
}

function entry({ name, shape }: StoredTensor, dtype: DType): TensorEntry {
  return { name, shape: [...shape], dtype: NAME_OF[dtype] };
}

function checkTensors(
  source: Safetensors,
  targets: readonly StoredTensor[],
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
