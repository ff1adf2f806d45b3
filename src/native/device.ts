import { DeviceError } from "../errors.js";
import { Arena, checkBytes } from "./arena.js";
import { Event } from "./event.js";
import { type DeviceMemory, loadAddon } from "./load.js";
import { Stream } from "./stream.js";

/** Devices a recipe can name; `auto` takes the best one present. */
export const DEVICE_NAMES = ["cpu", "cuda", "auto"] as const;
/**
 * One of {@link DEVICE_NAMES}; or `emulated`, the CUDA device's kernels on the processor, in an addon that was
 * built for testing them (native/README.md).
 */
export type DeviceName = (typeof DEVICE_NAMES)[number] | "emulated";

/**
 * A device: where memory lies and ops run. Owns nothing but its handle; dispose it last.
 *
 * Owners of memory and threads (Device, Stream, Arena) have `dispose()` and work with `using` where the language
 * has it. What is forgotten is closed when the thread ends; the garbage collector frees no device memory.
 */
export class Device {
  /** Handle of the addon. */
  readonly id: number;
  /** `cpu` or `cuda`. */
  readonly name: string;

  constructor(id: number, name: string) {
    this.id = id;
    this.name = name;
  }

  /**
   * Reserves zeroed memory.
   * @param bytes a tensor takes its bytes, rounded up to 64: {@link alignedBytes}
   * @param name appears in error messages
   * @throws MemoryError when there is not enough, or `bytes` is no size.
   */
  arena(bytes: number, name: string): Arena {
    checkBytes(name, bytes);
    return new Arena(this.id, bytes, name);
  }

  /**
   * Opens an ordered queue of work.
   * @param options.synchronous each op runs before its call returns, and the call throws what the op threw: for
   *   debugging. Default: whether the environment has SIMPER_SYNC=1.
   */
  stream(options: { synchronous?: boolean } = {}): Stream {
    return new Stream(this.id, options.synchronous ?? process.env.SIMPER_SYNC === "1");
  }

  /**
   * Compute threads of each stream that is opened from now on; without effect on a GPU.
   * @throws DeviceError when it is no whole number above 0
   */
  limitThreads(threads: number): void {
    if (!Number.isInteger(threads) || threads < 1)
      throw new DeviceError(`${threads} threads, expected a whole number above 0`);
    loadAddon().limitThreads(this.id, threads);
  }

  /** An event for streams of this device to record, and for any stream to wait for. */
  event(): Event {
    return new Event(this.id);
  }

  /** What is free of the device's own memory; undefined on the CPU, which computes in the machine's. */
  memory(): DeviceMemory | undefined {
    return loadAddon().deviceMemory(this.id);
  }

  /** Closes the device; its streams and arenas are disposed first. */
  dispose(): void {
    loadAddon().closeDevice(this.id);
  }

  /** {@link Device.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * The device that a name stands for: `auto` is `cuda` where that can be used, else `cpu`.
 *
 * @throws DeviceError, in one line, when a device is not there; AddonError when the addon is not built.
 */
export function requireDevice(name: DeviceName): "cpu" | "cuda" | "emulated" {
  const addon = loadAddon();
  if (name === "cpu" || name === "emulated") return name;
  const cuda = addon.info().backends.find((backend) => backend.name === "CUDA");
  if (cuda?.available) return "cuda";
  if (name === "auto") return "cpu";
  throw new DeviceError(
    `no CUDA device: ${cuda?.detail ?? "not part of this build"}; use --device cpu`,
  );
}

/**
 * How many devices of a kind this process sees: GPUs for `cuda`, one for the others.
 * @throws as {@link openDevice}
 */
export function deviceCount(name: DeviceName): number {
  return loadAddon().deviceCount(requireDevice(name));
}

/** What is free of a device's own memory now. @throws as {@link openDevice} */
export function freeDeviceMemory(name: DeviceName): number | undefined {
  const device = openDevice(name);
  try {
    return device.memory()?.free;
  } finally {
    device.dispose();
  }
}

/**
 * Opens a device. May be called any number of times, and in worker threads: each thread has handles of its own.
 *
 * @param name `auto` takes the best one present
 * @param options `threads`: compute threads of each stream; default: the cores this process may use.
 *   `index`: which of the visible GPUs, from 0; other devices have but one
 * @throws DeviceError when the device is not there; AddonError when the addon is not built.
 * @example
 * const device = openDevice("cpu");
 * const s = device.stream();
 * const arena = device.arena(1 << 20, "example");
 * try {
 *   const x = arena.tensor("f32", [2, 3]);
 *   s.fill(x, 1);
 *   console.log(await s.read(x));
 * } finally {
 *   s.dispose();
 *   arena.dispose();
 *   device.dispose();
 * }
 */
export function openDevice(
  name: DeviceName = "auto",
  options: { threads?: number; index?: number } = {},
): Device {
  const found = requireDevice(name);
  const { threads = 0, index = 0 } = options;
  if (!Number.isInteger(index) || index < 0) {
    throw new DeviceError(`${found} device ${index}, expected a whole number from 0`);
  }
  return new Device(loadAddon().openDevice(found, threads, index), found);
}
