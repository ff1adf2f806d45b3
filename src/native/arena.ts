import { MemoryError } from "../errors.js";
import { loadAddon } from "./load.js";
import { checkShape, DTYPES, type DType, elementCount, sizeOf, Tensor } from "./tensor.js";

/** Tensors start on cache lines: this is how much one really takes. */
export function alignedBytes(dtype: DType, shape: readonly number[]): number {
  return Math.ceil((elementCount(shape) * sizeOf(dtype)) / 64) * 64;
}

/**
 * One block of device memory, reserved at once, handed out front to back, freed as a whole by
 * `dispose()`: work already enqueued keeps it alive until it is done.
 */
export class Arena {
  /** Handle of the addon. */
  readonly id: number;
  /** Appears in error messages. */
  readonly name: string;
  /** Bytes reserved. */
  readonly bytes: number;

  /** Use {@link Device.arena}. */
  constructor(device: number, bytes: number, name: string) {
    this.id = loadAddon().openArena(device, bytes, name);
    this.name = name;
    this.bytes = bytes;
  }

  /** A dense tensor of zeros. @throws MemoryError when it does not fit. */
  tensor(dtype: DType, shape: readonly number[]): Tensor {
    checkShape(`arena "${this.name}"`, dtype, shape);
    const id = loadAddon().allocate(this.id, DTYPES.indexOf(dtype), shape);
    return new Tensor(id, dtype, [...shape]);
  }

  /** Bytes handed out so far. */
  get used(): number {
    return loadAddon().arenaUsed(this.id);
  }

  /** Frees the arena with all its tensors; using one afterwards is an error. Enqueued work is not disturbed. */
  dispose(): void {
    loadAddon().closeArena(this.id);
  }

  /** {@link Arena.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @throws MemoryError when `bytes` is not a size. */
export function checkBytes(name: string, bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new MemoryError(`arena "${name}": ${bytes} bytes, expected a whole number >= 0`);
  }
}
