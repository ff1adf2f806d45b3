import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { AddonError, CommError, ContractError, DeviceError, MemoryError } from "../errors.js";

/** What the addon exports: handles are integers, dtypes indices into {@link DTYPES}. */
export interface Addon {
  setErrorClasses(...classes: (new (message: string) => Error)[]): void;
  openDevice(name: string, threads: number, index: number): number;
  deviceCount(name: string): number;
  closeDevice(device: number): void;
  /** Bytes of the device's own memory; undefined where it computes in the machine's. */
  deviceMemory(device: number): DeviceMemory | undefined;
  limitThreads(device: number, threads: number): void;
  openStream(device: number, synchronous: boolean): number;
  closeStream(stream: number): void;
  /** Closes every stream of this thread: what runs is waited for, what is queued is dropped. */
  shutdown(): void;
  openArena(device: number, bytes: number, name: string): number;
  closeArena(arena: number): void;
  arenaUsed(arena: number): number;
  allocate(arena: number, dtype: number, shape: readonly number[]): number;
  view(
    base: number,
    byteOffset: number,
    dtype: number,
    shape: readonly number[],
    rowStride: number | undefined,
  ): number;
  setWindow(window: number, base: number, begin: number, rows: number): void;
  write(stream: number, tensor: number, array: ArrayBufferView): void;
  read(stream: number, tensor: number, array: ArrayBufferView): Promise<void>;
  finish(stream: number): Promise<void>;
  takeProfile(stream: number): OpTime[];
  setProfiling(stream: number, wanted: boolean): void;
  openEvent(device: number): number;
  closeEvent(event: number): void;
  record(stream: number, event: number): void;
  wait(stream: number, event: number): void;
  /** Rank and size are -1 where the engine knows them itself. */
  openComm(
    stream: number,
    engine: string,
    rank: number,
    size: number,
    uniqueId: Uint8Array,
    timeoutSeconds: number,
  ): number;
  connectComm(comm: number): Promise<void>;
  commWorld(comm: number): [rank: number, size: number];
  commAllGather(comm: number, to: number, from: number): void;
  commReduceScatter(comm: number, to: number, from: number): void;
  commAllReduce(comm: number, x: number): void;
  commBroadcast(comm: number, x: number, root: number): void;
  commBroadcastBytes(comm: number, bytes: Uint8Array, root: number): Promise<void>;
  commBarrier(comm: number): void;
  commCounters(comm: number): CommCounter[];
  abortComm(comm: number, reason: string): void;
  closeComm(comm: number): Promise<void>;
  dropComm(comm: number): void;
  ncclUniqueId(): Uint8Array;
  pushRange(stream: number, name: string): void;
  popRange(stream: number): void;
  info(): Omit<AddonInfo, "path">;
  readonly ops: Readonly<Record<string, (stream: number, ...args: number[]) => void>>;
}

/** Memory of a device, in bytes. */
export interface DeviceMemory {
  /** Not taken by anyone. */
  readonly free: number;
  /** All of it. */
  readonly total: number;
}

/** Time that an op has taken on a stream. */
export interface OpTime {
  /** Name in the op table, or `write`, `read`. */
  readonly op: string;
  /** How often it ran. */
  readonly calls: number;
  /** Time of all calls together. */
  readonly seconds: number;
}

/** What a communicator has done so far. */
export interface CommCounter {
  /** `all_gather`, `reduce_scatter`, `all_reduce`, `broadcast`, `broadcast_bytes` or `barrier`. */
  readonly op: string;
  /** How often it ran. */
  readonly calls: number;
  /** Bytes that this rank has sent to others in all calls together. */
  readonly bytes: number;
}

/** What this build of the addon can use on this machine. */
export interface AddonInfo {
  /** File the addon was loaded from. */
  readonly path: string;
  /** The CPU device. */
  readonly cpu: {
    /** Best instruction set oneDNN will use. */
    readonly isa: string;
    /** Version of oneDNN. */
    readonly onednn: string;
    /** Cores this process may use. */
    readonly threads: number;
    /** Whether bf16 GEMMs run in hardware. */
    readonly bf16: boolean;
    /** The kernel that oneDNN picks for them. */
    readonly bf16Kernel: string;
  };
  /** What else could be there, and what is missing. */
  readonly backends: readonly {
    /** `CUDA`, `NCCL` or `MPI`. */
    name: string;
    /** Whether it can be used. */
    available: boolean;
    /** Version, or what is missing. */
    detail: string;
  }[];
}

let loaded: { addon: Addon; path: string } | undefined;

/** Root of the package: the folder that holds package.json, whether run from a clone or an install. */
const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

/** Loads the native addon once per thread. @throws AddonError naming every path tried and why it failed. */
export function loadAddon(): Addon {
  return load().addon;
}

/** @throws AddonError when the addon is not built. */
export function addonInfo(): AddonInfo {
  const { addon, path } = load();
  return { path, ...addon.info() };
}

function load(): { addon: Addon; path: string } {
  if (loaded) return loaded;
  // libgomp reads this once, when it is loaded: threads that wait for work soon sleep, so that the event
  // loop gets its share of a small machine.
  process.env.GOMP_SPINCOUNT ??= "20000";
  const require = createRequire(import.meta.url);
  const tried: string[] = [];
  for (const candidate of candidates()) {
    if (!existsSync(candidate)) {
      tried.push(`  ${candidate}: no such file`);
      continue;
    }
    try {
      const addon = require(candidate) as Addon;
      addon.setErrorClasses(ContractError, MemoryError, DeviceError, CommError);
      process.once("exit", () => addon.shutdown());
      loaded = { addon, path: candidate };
      return loaded;
    } catch (error) {
      tried.push(`  ${candidate}: ${(error as Error).message}`);
    }
  }
  throw new AddonError(`the native addon is not there:\n${tried.join("\n")}`, {
    hint: "build it with: npx simper-native build",
  });
}

function candidates(): string[] {
  const explicit = process.env.SIMPER_NATIVE_BINDING;
  if (explicit) return [path.resolve(explicit)];
  return ["Release", "Debug"].map((kind) =>
    path.join(packageRoot, "build", kind, "simper_native.node"),
  );
}
