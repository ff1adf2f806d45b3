import type { Event } from "./event.js";
import { loadAddon, type OpTime } from "./load.js";
import { checkTensor, checkTransfer, opParameters, toNative } from "./op-arguments.js";
import { type OpName, type Ops, opMethod } from "./ops.js";
import { type HostArray, hostArray, type Tensor } from "./tensor.js";

// The op methods are added below, one per entry of the addon's op table.
export interface Stream extends Ops {}

/**
 * An ordered queue of work on a device, and the object ops are called on. Calls check their arguments,
 * enqueue and return at once; the event loop stays free. The first failure makes the stream skip what
 * follows until the next `done()` or `read()`, which rejects with it.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the methods exist once the addon is loaded
export class Stream {
  /** Handle of the addon. */
  readonly id: number;

  /** Use {@link Device.stream}. */
  constructor(device: number, synchronous: boolean) {
    bindOps();
    this.id = loadAddon().openStream(device, synchronous);
  }

  /** Copies a host array (taken now, free for reuse on return) into a dense tensor. */
  write(tensor: Tensor, array: HostArray | Uint8Array): void {
    checkTransfer("write", tensor, array);
    loadAddon().write(this.id, tensor.id, array);
  }

  /** The tensor's elements as they are once everything enqueued so far has run. */
  async read(tensor: Tensor): Promise<HostArray> {
    checkTensor("read", tensor);
    const array = hostArray(tensor.dtype, tensor.size);
    await loadAddon().read(this.id, tensor.id, array);
    return array;
  }

  /** As {@link read}, into an array the caller keeps. */
  readInto(tensor: Tensor, array: HostArray | Uint8Array): Promise<void> {
    checkTransfer("readInto", tensor, array);
    return loadAddon().read(this.id, tensor.id, array);
  }

  /** Resolves once everything enqueued so far has run. @throws the first failure since the last wait. */
  done(): Promise<void> {
    return loadAddon().finish(this.id);
  }

  /**
   * Records an event after everything enqueued so far: what waits for it comes after that. Runs even after
   * a failure, which those that wait get, too; the event stays this stream's.
   */
  record(event: Event): void {
    loadAddon().record(this.id, event.id);
  }

  /**
   * What is enqueued from now on runs after what the event's stream had enqueued when it was last recorded;
   * an event that never was is not waited for. The event loop stays free.
   */
  wait(event: Event): void {
    loadAddon().wait(this.id, event.id);
  }

  /**
   * Where the time went since the stream was opened or last asked: what has run so far, by op. A GPU has
   * times only while {@link profiling} is on.
   */
  takeProfile(): OpTime[] {
    return loadAddon().takeProfile(this.id);
  }

  /**
   * Whether the times of ops are wanted from now on. A GPU then puts an event before and after each op, and
   * `cudaProfilerStart` and `cudaProfilerStop` mark the range for nsys and ncu; the CPU always has times.
   */
  profiling(wanted: boolean): void {
    loadAddon().setProfiling(this.id, wanted);
  }

  /** Opens a named range on a GPU's timeline, around what is enqueued before {@link popRange}. */
  pushRange(name: string): void {
    loadAddon().pushRange(this.id, name);
  }

  /** Closes the range that was opened last. */
  popRange(): void {
    loadAddon().popRange(this.id);
  }

  /** Drops what has not started, waits for what has, and joins the thread. */
  dispose(): void {
    loadAddon().closeStream(this.id);
  }

  /** {@link Stream.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

let bound = false;

function bindOps(): void {
  if (bound) return;
  for (const [name, op] of Object.entries(loadAddon().ops)) {
    const method = opMethod(name as OpName);
    const parameters = opParameters(method);
    const call = function (this: Stream, ...args: unknown[]): void {
      op(this.id, ...toNative(method, parameters, args));
    };
    Object.defineProperty(Stream.prototype, method, { value: call });
  }
  bound = true;
}
