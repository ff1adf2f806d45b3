import {
  type Arena,
  type Device,
  type DType,
  type HostArray,
  hostArray,
  openDevice,
  type Stream,
  type Tensor,
} from "../native/index.js";
import { offloadElements, type StoreLine } from "./layout.js";

/**
 * Host memory for the optimizer's state beside a device with memory of its own: an arena and a stream of the CPU
 * device, and what gradients and rounded weights travel in.
 */
export interface HostState {
  /** The CPU device. */
  readonly device: Device;
  readonly arena: Arena;
  readonly stream: Stream;
  /** (largest part) f32. */
  readonly grad: Tensor;
  /** (largest part) in the run's dtype; absent in f32 runs, whose weights are the masters. */
  readonly weight: Tensor | undefined;
  /** (2) f32: norm and clip factor. */
  readonly clip: Tensor;
  /** Arrays of `largest` elements: gradients on their way down, in turns, and weights on their way up. */
  readonly down: readonly [Float32Array, Float32Array];
  readonly up: HostArray;
  dispose(): void;
}

/**
 * @param lines of `storeBytes`, for the sizes
 * @param largest elements of the largest part of a block that a rank keeps
 * @throws MemoryError
 */
export function openHostState(
  lines: readonly StoreLine[],
  largest: number,
  dtype: DType,
  threads?: number,
): HostState {
  const device = openDevice("cpu", threads ? { threads } : {});
  const stream = device.stream();
  const kept = lines.filter(({ host, name }) => host && name !== "copies between device and host");
  const bytes = kept.reduce((sum, line) => sum + line.bytes, 64);
  const close = () => {
    stream.dispose();
    device.dispose();
  };
  let arena: Arena;
  try {
    arena = device.arena(bytes, "optimizer in host memory");
  } catch (error) {
    close();
    throw error;
  }
  const elements = offloadElements(largest, dtype);
  const clip = arena.tensor("f32", [2]);
  const grad = arena.tensor("f32", [elements.arena.f32]);
  const rounded = elements.arena.weight > 0;
  return {
    device,
    arena,
    stream,
    clip,
    grad,
    weight: rounded ? arena.tensor(dtype, [elements.arena.weight]) : undefined,
    down: [new Float32Array(largest), new Float32Array(largest)],
    up: hostArray(dtype, largest),
    dispose: () => {
      stream.dispose();
      arena.dispose();
      device.dispose();
    },
  };
}

/** Copies f32 masters (n) from the host to `to` (n) f32 on the device. */
export async function readMaster(
  host: HostState,
  stream: Stream,
  to: Tensor,
  master: Tensor,
): Promise<void> {
  const array = host.down[0].subarray(0, master.size);
  await host.stream.readInto(master, array);
  stream.write(to, array);
}

/** Rounds masters (n) on the host and copies them to `weight` (n) on the device. */
export async function roundMaster(
  host: HostState,
  stream: Stream,
  weight: Tensor,
  master: Tensor,
): Promise<void> {
  const rounded = host.weight?.slice(0, master.size) ?? master;
  if (rounded !== master) host.stream.convert(rounded, master);
  const array = host.up.subarray(0, master.size);
  await host.stream.readInto(rounded, array);
  stream.write(weight, array);
}
