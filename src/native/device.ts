import { DeviceError } from "../errors.js";
import { Arena, checkBytes } from "./arena.js";
import { loadAddon } from "./load.js";
import { Stream } from "./stream.js";

/** Devices a recipe can name; `auto` takes the best one present. */
export const DEVICE_NAMES = ["cpu", "cuda", "auto"] as const;
export type DeviceName = (typeof DEVICE_NAMES)[number];

/** A device: where memory lies and ops run. Owns nothing but its handle; dispose it last. */
export class Device {
  readonly id: number;
  readonly name: string;

  constructor(id: number, name: string) {
    this.id = id;
    this.name = name;
  }

  /** Reserves zeroed memory. @throws MemoryError when there is not enough. */
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

  dispose(): void {
    loadAddon().closeDevice(this.id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** @throws DeviceError, in one line, when a device is not there; AddonError when the addon is not built. */
export function requireDevice(name: DeviceName): void {
  const { backends } = loadAddon().info();
  if (name !== "cuda") return;
  const cuda = backends.find((backend) => backend.name === "CUDA");
  throw new DeviceError(
    `no CUDA device: ${cuda?.detail ?? "not part of this build"}; use --device cpu`,
  );
}

/**
 * Opens a device.
 * @param options.threads compute threads of each stream; default: the cores this process may use.
 * @throws DeviceError when the device is not there.
 */
export function openDevice(name: DeviceName = "auto", options: { threads?: number } = {}): Device {
  requireDevice(name);
  return new Device(loadAddon().openDevice("cpu", options.threads ?? 0), "cpu");
}
