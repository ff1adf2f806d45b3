import type { FileHandle } from "node:fs/promises";
import { open } from "node:fs/promises";
import { CheckpointError } from "../errors.js";
import { discard, publish, temporaryName, writeError } from "./files.js";
import { formatHeader, type TensorEntry, tensorBytes } from "./safetensors-header.js";

/** One write asks for at most this much: the system refuses 2 GiB and more. */
const MAX_WRITE_BYTES = 1 << 30;

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
    await this.seal();
    try {
      await publish(this.temporary, this.target);
    } catch (error) {
      await this.abort();
      throw writeError(this.target, error);
    }
  }

  /**
   * As {@link finish}, under its temporary name, which is returned: for files that appear together with others.
   * {@link abort} still gives it up.
   */
  async seal(): Promise<string> {
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
      return this.temporary;
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
    const length = Math.min(bytes.length - done, MAX_WRITE_BYTES);
    done += (await handle.write(bytes, done, length)).bytesWritten;
  }
}
