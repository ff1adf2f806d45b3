import type { FileHandle } from "node:fs/promises";
import { open, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { CheckpointError } from "../errors.js";
import { MAX_HEADER_BYTES, parseHeader, type TensorInfo } from "./safetensors-header.js";

export type { SafetensorsDtype, TensorEntry, TensorInfo } from "./safetensors-header.js";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** One read asks for at most this much: the system refuses 2 GiB and more. */
const MAX_READ_BYTES = 1 << 30;

/** The tensors of one file, or of all files that an index names. */
export class Safetensors {
  /** Use {@link openSafetensors}. */
  constructor(
    private readonly tensors: ReadonlyMap<string, TensorInfo>,
    private readonly handles: ReadonlyMap<string, FileHandle>,
    /** `__metadata__` of the files, e.g. `{format: "pt"}`. */
    readonly metadata: Readonly<Record<string, string>>,
    /** The file, folder or index that it was opened by. */
    readonly where: string,
  ) {}

  /** Names in the order of the files. */
  names(): string[] {
    return [...this.tensors.keys()];
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** @throws CheckpointError when there is no such tensor. */
  info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info === undefined)
      throw new CheckpointError(`${this.where}: there is no tensor "${name}"`);
    return info;
  }

  /**
   * Copies `byteLength` bytes of a tensor, from its byte `byteOffset` on, to the start of `into`.
   *
   * @throws CheckpointError when the range leaves the tensor, or the file has become shorter.
   */
  async read(
    name: string,
    byteOffset: number,
    byteLength: number,
    into: Uint8Array,
  ): Promise<void> {
    const info = this.info(name);
    if (byteOffset < 0 || byteLength < 0 || byteOffset + byteLength > info.byteLength) {
      throw new CheckpointError(
        `${info.file}: tensor "${name}" has ${info.byteLength} bytes; ` +
          `received a request for [${byteOffset}, ${byteOffset + byteLength})`,
      );
    }
    if (byteLength > into.byteLength) {
      throw new CheckpointError(
        `${info.file}: tensor "${name}": ${byteLength} bytes do not fit into ${into.byteLength}`,
      );
    }
    await readFully(
      this.handles.get(info.file)!,
      info.file,
      info.offset + byteOffset,
      byteLength,
      into,
    );
  }

  /**
   * The bytes of a tensor in order, in pieces of at most `maxBytes`. The buffer is used again for the
   * next piece: copy what is to be kept.
   */
  async *chunks(name: string, maxBytes = 16 << 20): AsyncGenerator<Uint8Array, void, undefined> {
    const { byteLength } = this.info(name);
    const buffer = new Uint8Array(Math.min(maxBytes, byteLength));
    for (let at = 0; at < byteLength; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, byteLength - at));
      await this.read(name, at, piece.length, piece);
      yield piece;
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.handles.values()].map((handle) => handle.close()));
  }
}

/**
 * Opens a `.safetensors` file, an index file, or a folder that holds `model.safetensors` or
 * `model.safetensors.index.json`, and checks every header. The caller closes the result.
 *
 * @throws CheckpointError naming the file and what is wrong with it.
 */
export async function openSafetensors(fileOrFolder: string): Promise<Safetensors> {
  const { files, weightMap, source } = await listFiles(fileOrFolder);
  const handles = new Map<string, FileHandle>();
  const tensors = new Map<string, TensorInfo>();
  const metadata: Record<string, string> = {};
  try {
    for (const file of files) {
      // Opening a pipe would wait for a writer, and reading a folder fails without naming it.
      const kind = await stat(file).catch(() => undefined);
      if (kind !== undefined && !kind.isFile()) {
        throw new CheckpointError(`${file}: expected a file, found a folder, pipe or device`, {
          hint: "model_name_or_path must be a local folder in Hugging Face format (config.json, *.safetensors)",
        });
      }
      const handle = await open(file).catch((error: NodeJS.ErrnoException) => {
        const why = error.code === "ENOENT" ? "there is no such file" : error.message;
        const named = weightMap === undefined ? "" : `, named by ${source},`;
        throw new CheckpointError(`${file}${named} cannot be opened: ${why}`, {
          hint: "The model is incomplete or may not be read; copy or download it again.",
          cause: error,
        });
      });
      handles.set(file, handle);
      const header = await readHeader(handle, file);
      Object.assign(metadata, header.metadata);
      for (const tensor of header.tensors) {
        const earlier = tensors.get(tensor.name);
        if (earlier !== undefined) {
          throw new CheckpointError(
            `tensor "${tensor.name}" is in both ${earlier.file} and ${file}`,
          );
        }
        tensors.set(tensor.name, tensor);
      }
    }
    for (const [name, file] of weightMap ?? []) {
      if (tensors.get(name)?.file !== file) {
        throw new CheckpointError(`${source}: tensor "${name}" is not in ${file}`, {
          hint: "The index and the files belong to different models; download them again.",
        });
      }
    }
  } catch (error) {
    await Promise.all([...handles.values()].map((handle) => handle.close()));
    throw error;
  }
  return new Safetensors(tensors, handles, metadata, source);
}

type Listing = { files: string[]; weightMap?: Map<string, string>; source: string };

async function listFiles(fileOrFolder: string): Promise<Listing> {
  const found = await stat(fileOrFolder).catch(() => undefined);
  if (found === undefined) {
    throw new CheckpointError(`${fileOrFolder}: there is no such file or folder`);
  }
  if (!found.isDirectory()) {
    if (fileOrFolder.endsWith(".json")) return readIndex(fileOrFolder);
    return { files: [fileOrFolder], source: fileOrFolder };
  }
  const single = path.join(fileOrFolder, SINGLE);
  if (await exists(single)) return { files: [single], source: single };
  const index = path.join(fileOrFolder, INDEX);
  if (await exists(index)) return readIndex(index);
  throw new CheckpointError(`${fileOrFolder}: holds neither ${SINGLE} nor ${INDEX}`, {
    hint: "Weights in other formats (pytorch_model.bin) have to be saved as safetensors first.",
  });
}

async function readIndex(file: string): Promise<Listing> {
  let index: unknown;
  try {
    index = JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    throw new CheckpointError(`${file}: not valid JSON: ${(error as Error).message}`, {
      hint: "The file is damaged; download or save the model again.",
      cause: error,
    });
  }
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new CheckpointError(`${file}: expected "weight_map", a map of tensor to file name`, {
      hint: "The file is damaged; download or save the model again.",
    });
  }
  const weightMap = new Map<string, string>();
  for (const [name, part] of Object.entries(map)) {
    if (typeof part !== "string" || path.basename(part) !== part || part === "" || part === "..") {
      throw new CheckpointError(
        `${file}: tensor "${name}": expected the name of a file beside the index, ` +
          `received ${JSON.stringify(part)}`,
      );
    }
    weightMap.set(name, path.join(path.dirname(file), part));
  }
  return { files: [...new Set(weightMap.values())].sort(), weightMap, source: file };
}

async function readHeader(
  handle: FileHandle,
  file: string,
): Promise<ReturnType<typeof parseHeader>> {
  const { size } = await handle.stat();
  if (size < 8) {
    throw new CheckpointError(
      `${file}: has ${size} bytes, fewer than the 8 of a safetensors length`,
      {
        hint: "The file is damaged or no safetensors file; download or save it again.",
      },
    );
  }
  const prefix = new Uint8Array(8);
  await readFully(handle, file, 0, 8, prefix);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(Math.min(size - 8, MAX_HEADER_BYTES))) {
    throw new CheckpointError(
      `${file}: the header claims ${length} bytes; expected at most ` +
        `${Math.min(size - 8, MAX_HEADER_BYTES)} in a file of ${size}`,
      { hint: "The file is damaged or no safetensors file; download or save it again." },
    );
  }
  const header = new Uint8Array(Number(length));
  await readFully(handle, file, 8, header.length, header);
  return parseHeader(file, header, size);
}

async function readFully(
  handle: FileHandle,
  file: string,
  position: number,
  byteLength: number,
  into: Uint8Array,
): Promise<void> {
  for (let done = 0; done < byteLength; ) {
    const length = Math.min(byteLength - done, MAX_READ_BYTES);
    const { bytesRead } = await handle.read(into, done, length, position + done);
    if (bytesRead === 0) {
      throw new CheckpointError(
        `${file}: ends at byte ${position + done}; it was cut while being read`,
      );
    }
    done += bytesRead;
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
