import type { FileHandle } from "node:fs/promises";
import { open, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { CheckpointError } from "../errors.js";
import { discard, publish, temporaryName, writeError } from "./files.js";
import {
  formatHeader,
  MAX_HEADER_BYTES,
  parseHeader,
  type TensorEntry,
  type TensorInfo,
  tensorBytes,
} from "./safetensors-header.js";

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
    private readonly source: string,
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
      throw new CheckpointError(`${this.source}: there is no tensor "${name}"`);
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
      const handle = await open(file).catch((error: NodeJS.ErrnoException) => {
        const why = error.code === "ENOENT" ? "there is no such file" : error.message;
        const named = weightMap === undefined ? "" : `, named by ${source},`;
        throw new CheckpointError(`${file}${named} cannot be opened: ${why}`, { cause: error });
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
      cause: error,
    });
  }
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new CheckpointError(`${file}: expected "weight_map", a map of tensor to file name`);
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

/**
 * Writes one safetensors file tensor by tensor. The file appears under its name in {@link finish},
 * forced to disk; until then, and after a failure, there is only a temporary one.
 *
 * @example
 * const writer = await SafetensorsWriter.create(file, [{ name: "w", dtype: "F32", shape: [2] }]);
 * await writer.write("w", new Uint8Array(Float32Array.of(1, 2).buffer));
 * await writer.finish();
 */
export class SafetensorsWriter {
  private current = 0;
  private written = 0;
  private closed = false;

  private constructor(
    private readonly target: string,
    private readonly temporary: string,
    private readonly handle: FileHandle,
    private readonly entries: readonly TensorEntry[],
  ) {}

  /** Starts a file. Tensors are written later in the order of `entries`. */
  static async create(
    target: string,
    entries: readonly TensorEntry[],
    metadata: Readonly<Record<string, string>> = { format: "pt" },
  ): Promise<SafetensorsWriter> {
    const names = new Set<string>();
    for (const entry of entries) {
      if (names.has(entry.name) || entry.name === "__metadata__") {
        throw new CheckpointError(
          `${target}: tensor name "${entry.name}" is used twice or reserved`,
        );
      }
      if (tensorBytes(entry) === undefined) {
        throw new CheckpointError(`${target}: tensor "${entry.name}" has more than 2^53 bytes`);
      }
      names.add(entry.name);
    }
    const temporary = temporaryName(target);
    let handle: FileHandle | undefined;
    try {
      handle = await open(temporary, "w");
      await writeFully(handle, formatHeader(entries, metadata));
    } catch (error) {
      await handle?.close();
      await discard(temporary);
      throw writeError(target, error);
    }
    return new SafetensorsWriter(target, temporary, handle, entries);
  }

  /**
   * Appends bytes of a tensor; a tensor may come in many pieces, the tensors come in order.
   *
   * @throws CheckpointError when they do not, or the disk refuses; the file is given up then.
   */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    this.skipFinished();
    const entry = this.entries[this.current];
    const left = entry === undefined ? 0 : tensorBytes(entry)! - this.written;
    if (this.closed || entry?.name !== name || bytes.length > left) {
      // Tensors without bytes are skipped over and may be written any time.
      if (!this.closed && bytes.length === 0 && this.entries.some((other) => other.name === name))
        return;
      await this.abort();
      const expected =
        entry === undefined ? "no more data" : `at most ${left} bytes of "${entry.name}"`;
      throw new CheckpointError(
        `${this.target}: expected ${expected}, received ${bytes.length} bytes of "${name}"`,
      );
    }
    try {
      await writeFully(this.handle, bytes);
    } catch (error) {
      await this.abort();
      throw writeError(this.target, error);
    }
    this.written += bytes.length;
  }

  /** Completes the file: all tensors must have been written. */
  async finish(): Promise<void> {
    this.skipFinished();
    const missing = this.entries[this.current];
    if (this.closed || missing !== undefined) {
      await this.abort();
      const what = missing === undefined ? "it was given up" : `"${missing.name}" is not complete`;
      throw new CheckpointError(`${this.target}: cannot be finished: ${what}`);
    }
    try {
      await this.handle.sync();
      this.closed = true;
      await this.handle.close();
      await publish(this.temporary, this.target);
    } catch (error) {
      await this.abort();
      throw writeError(this.target, error);
    }
  }

  /** Gives the file up and removes the temporary one. */
  async abort(): Promise<void> {
    if (!this.closed) {
      this.closed = true;
      await this.handle.close();
    }
    await discard(this.temporary);
  }

  private skipFinished(): void {
    while (
      this.current < this.entries.length &&
      this.written === tensorBytes(this.entries[this.current]!)
    ) {
      this.current++;
      this.written = 0;
    }
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, MAX_READ_BYTES);
    done += (await handle.write(bytes, done, length)).bytesWritten;
  }
}

/** One file of a model and the tensors in it. */
export interface Shard {
  readonly file: string;
  readonly entries: readonly TensorEntry[];
}

/** The files of a model; `index` is the content of `model.safetensors.index.json` if there are several. */
export interface ShardPlan {
  readonly shards: readonly Shard[];
  readonly index?: {
    readonly metadata: { readonly total_size: number };
    readonly weight_map: Readonly<Record<string, string>>;
  };
}

/**
 * Spreads tensors over files as transformers names them: in order, a new file where the next tensor
 * would pass `maxShardBytes`. A tensor is never split.
 */
export function planShards(entries: readonly TensorEntry[], maxShardBytes = 5e9): ShardPlan {
  const groups: TensorEntry[][] = [[]];
  let groupBytes = 0;
  let totalBytes = 0;
  for (const entry of entries) {
    const bytes = tensorBytes(entry) ?? Number.NaN;
    if (groupBytes > 0 && groupBytes + bytes > maxShardBytes) {
      groups.push([]);
      groupBytes = 0;
    }
    groups.at(-1)!.push(entry);
    groupBytes += bytes;
    totalBytes += bytes;
  }
  if (groups.length === 1) return { shards: [{ file: SINGLE, entries: groups[0]! }] };
  const five = (n: number): string => String(n).padStart(5, "0");
  const shards = groups.map((group, i) => ({
    file: `model-${five(i + 1)}-of-${five(groups.length)}.safetensors`,
    entries: group,
  }));
  const weightMap = shards.flatMap(({ file, entries }) => entries.map(({ name }) => [name, file]));
  return {
    shards,
    index: {
      metadata: { total_size: totalBytes },
      weight_map: Object.fromEntries(weightMap.sort(([a], [b]) => (a! < b! ? -1 : 1))) as Record<
        string,
        string
      >,
    },
  };
}
