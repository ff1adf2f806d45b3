import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { CheckpointError } from "../errors.js";
import { type PieceIndex, parsePieceIndex, pieceIndexFile } from "./pieces.js";
import { openSafetensors, type Safetensors, type SafetensorsDtype } from "./safetensors.js";
import { elementBytes } from "./safetensors-header.js";

/** Tensors by name, wherever their bytes are. */
export interface TensorSource {
  /** What it was opened by, for messages. */
  readonly where: string;
  names(): string[];
  has(name: string): boolean;
  /** Type and shape of the whole tensor. @throws CheckpointError when there is no such tensor. */
  info(name: string): { readonly dtype: SafetensorsDtype; readonly shape: readonly number[] };
  /** Copies `byteLength` bytes of a tensor, from its byte `byteOffset` on, to the start of `into`. */
  read(name: string, byteOffset: number, byteLength: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** How many files may be open at once: a checkpoint of a thousand ranks has a thousand. */
const OPEN_FILES = 32;

/**
 * Opens state that one process wrote (`<base>.safetensors`) or several (`<base>.safetensors.index.json` and its
 * files), and checks all of it but the values: every file, header and piece. The caller closes the result.
 *
 * @throws CheckpointError naming the file, the tensor, and what is missing, doubled or of the wrong length.
 */
export async function openPieces(folder: string, base: string): Promise<TensorSource> {
  const single = path.join(folder, `${base}.safetensors`);
  const indexFile = path.join(folder, pieceIndexFile(base));
  const isThere = (file: string) =>
    stat(file).then(
      () => true,
      () => false,
    );
  if ((await isThere(single)) || !(await isThere(indexFile))) return openSafetensors(single);
  const text = await readFile(indexFile, "utf8").catch((cause: Error) => {
    throw new CheckpointError(`${indexFile}: cannot be read: ${cause.message}`, { cause });
  });
  const index = parsePieceIndex(indexFile, text);
  return new PieceSource(indexFile, folder, index, await checkFiles(folder, indexFile, index));
}

/** Opens every file once, for its header alone. Returns the type of each tensor. */
async function checkFiles(
  folder: string,
  indexFile: string,
  { pieces }: PieceIndex,
): Promise<Map<string, SafetensorsDtype>> {
  const expected = new Map<string, Map<string, number>>();
  for (const [name, list] of Object.entries(pieces)) {
    for (const { file, begin, end } of list) {
      const tensors = expected.get(file) ?? new Map<string, number>();
      expected.set(file, tensors.set(name, end - begin));
    }
  }
  const dtypes = new Map<string, SafetensorsDtype>();
  for (const [file, tensors] of expected) {
    const source = await openSafetensors(path.join(folder, file)).catch((cause: unknown) => {
      throw cause instanceof CheckpointError ? damaged(cause.message, cause) : cause;
    });
    try {
      checkFile(source, path.join(folder, file), indexFile, tensors, dtypes);
    } finally {
      await source.close();
    }
  }
  return dtypes;
}

function checkFile(
  source: Safetensors,
  file: string,
  indexFile: string,
  tensors: ReadonlyMap<string, number>,
  dtypes: Map<string, SafetensorsDtype>,
): void {
  for (const [name, elements] of tensors) {
    if (!source.has(name)) {
      throw damaged(
        `${indexFile}: tensor "${name}" has a piece in ${file}, which does not hold it`,
      );
    }
    const { shape, dtype } = source.info(name);
    if (shape.length !== 1 || shape[0] !== elements) {
      throw damaged(
        `${file}: the piece of tensor "${name}" has shape [${shape.join(", ")}], expected [${elements}] as the index says`,
      );
    }
    const before = dtypes.get(name) ?? dtype;
    if (before !== dtype) {
      throw damaged(`${file}: the piece of tensor "${name}" is ${dtype}, others are ${before}`);
    }
    dtypes.set(name, dtype);
  }
  const extra = source.names().find((name) => !tensors.has(name));
  if (extra !== undefined) {
    throw damaged(`${file}: holds a piece of tensor "${extra}" that the index does not name`);
  }
}

function damaged(message: string, cause?: unknown): CheckpointError {
  return new CheckpointError(message, {
    hint: "the checkpoint is damaged or not copied as a whole; resume from another checkpoint-<step> of the run",
    cause,
  });
}

class PieceSource implements TensorSource {
  readonly #folder: string;
  readonly #index: PieceIndex;
  readonly #dtypes: ReadonlyMap<string, SafetensorsDtype>;
  /** Open files, the one that was used last at the end. */
  readonly #open = new Map<string, Safetensors>();

  constructor(
    readonly where: string,
    folder: string,
    index: PieceIndex,
    dtypes: ReadonlyMap<string, SafetensorsDtype>,
  ) {
    this.#folder = folder;
    this.#index = index;
    this.#dtypes = dtypes;
  }

  names(): string[] {
    return Object.keys(this.#index.shapes);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#index.shapes, name);
  }

  info(name: string) {
    if (!this.has(name)) {
      throw new CheckpointError(`${this.where}: there is no tensor "${name}"`);
    }
    return { dtype: this.#dtypes.get(name) ?? "F32", shape: this.#index.shapes[name]! } as const;
  }

  async read(name: string, byteOffset: number, byteLength: number, into: Uint8Array) {
    const { dtype, shape } = this.info(name);
    const size = elementBytes[dtype];
    const bytes = shape.reduce((product, extent) => product * extent, size as number);
    const last = byteOffset + byteLength;
    if (byteOffset < 0 || byteLength < 0 || last > bytes || byteLength > into.byteLength) {
      throw new CheckpointError(
        `${this.where}: tensor "${name}" has ${bytes} bytes; ` +
          `received a request for [${byteOffset}, ${last}) into ${into.byteLength}`,
      );
    }
    for (const { file, begin, end } of this.#index.pieces[name]!) {
      const from = Math.max(byteOffset, begin * size);
      const to = Math.min(last, end * size);
      if (from >= to) continue;
      const source = await this.#file(file);
      const part = into.subarray(from - byteOffset, to - byteOffset);
      await source.read(name, from - begin * size, to - from, part);
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].map((source) => source.close()));
    this.#open.clear();
  }

  async #file(name: string): Promise<Safetensors> {
    const source = this.#open.get(name) ?? (await openSafetensors(path.join(this.#folder, name)));
    this.#open.delete(name);
    this.#open.set(name, source);
    const [oldest] = this.#open;
    if (this.#open.size > OPEN_FILES && oldest) {
      this.#open.delete(oldest[0]);
      await oldest[1].close();
    }
    return source;
  }
}
