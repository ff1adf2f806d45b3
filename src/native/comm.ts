import { CommError, ContractError } from "../errors.js";
import { type CommCounter, loadAddon } from "./load.js";
import { checkTensor } from "./op-arguments.js";
import type { Stream } from "./stream.js";
import type { Tensor } from "./tensor.js";

/** What carries the data: nothing (one process), Open MPI between processes, NCCL between GPUs. */
export type CommEngine = "self" | "mpi" | "nccl";

/** How {@link Communicator.open} meets the other ranks. */
export interface CommOptions {
  /** What carries the data. */
  readonly engine: CommEngine;
  /** This process among all, from 0. MPI knows it; given, it must agree. */
  readonly rank?: number | undefined;
  /** Number of processes. MPI knows it; given, it must agree. */
  readonly size?: number | undefined;
  /** For `nccl`: what {@link ncclUniqueId} gave one of the ranks. */
  readonly uniqueId?: Uint8Array | undefined;
  /** Bound of one operation, after which it fails and names the ranks that did not answer. */
  readonly timeoutSeconds: number;
  /** Bound of the opening, in which the ranks meet; default: that of an operation. */
  readonly connectSeconds?: number | undefined;
}

/**
 * The processes of a run and what they do together. Every operation is enqueued on one stream and returns
 * at once; every rank must enqueue the same operations in the same order. Its order relative to other
 * streams comes from {@link Event}s. R is the number of ranks, r this one.
 *
 * A failure (a rank that does not answer in time, {@link Communicator.abort}) stays: the stream's next
 * `done()` or `read()`, and those of streams that wait for its events, reject with a CommError, and so does
 * every later operation.
 */
export class Communicator {
  /** Handle of the addon. */
  readonly id: number;
  /** What carries the data. */
  readonly engine: CommEngine;
  /** This process among all, from 0. */
  readonly rank: number;
  /** R. */
  readonly size: number;
  /** The stream it works on. */
  readonly stream: Stream;
  readonly #timeoutSeconds: number;

  private constructor(id: number, engine: CommEngine, stream: Stream, timeoutSeconds: number) {
    const [rank, size] = loadAddon().commWorld(id);
    this.id = id;
    this.engine = engine;
    this.rank = rank;
    this.size = size;
    this.stream = stream;
    this.#timeoutSeconds = timeoutSeconds;
  }

  /**
   * Connects, on the stream's thread.
   * @param stream all operations go here; `mpi` wants a device in the machine's memory
   * @throws CommError where the engine is missing, the ranks disagree or do not come; ContractError for
   *   options that cannot be.
   */
  static async open(stream: Stream, options: CommOptions): Promise<Communicator> {
    const { engine, timeoutSeconds, uniqueId = new Uint8Array(0) } = options;
    const { rank = -1, size = -1, connectSeconds = timeoutSeconds } = options;
    checkOptions(options);
    const addon = loadAddon();
    const id = addon.openComm(stream.id, engine, rank, size, uniqueId, timeoutSeconds);
    try {
      const what = `open: ${engine} has not met all ranks`;
      await within(connectSeconds, addon.connectComm(id), what);
      return new Communicator(id, engine, stream, timeoutSeconds);
    } catch (error) {
      addon.dropComm(id);
      throw error;
    }
  }

  /**
   * to = the `from` of every rank, in the order of ranks.
   * @param to R · n elements, any dtype
   * @param from n elements of the same dtype; may be this rank's own part of `to`
   */
  allGather(to: Tensor, from: Tensor): void {
    checkTensors("allGather", to, from);
    loadAddon().commAllGather(this.id, to.id, from.id);
  }

  /**
   * to = Σ over ranks of part r of their `from`, in a fixed order of f32 sums.
   * @param to n elements, f32; may be this rank's own part of `from`
   * @param from R · n elements, f32; kept, but for that part
   */
  reduceScatter(to: Tensor, from: Tensor): void {
    checkTensors("reduceScatter", to, from);
    loadAddon().commReduceScatter(this.id, to.id, from.id);
  }

  /** x = Σ over ranks of x, in place: f32 sums in a fixed order, the same bits on every rank. */
  allReduce(x: Tensor): void {
    checkTensors("allReduce", x);
    loadAddon().commAllReduce(this.id, x.id);
  }

  /** x = that of rank `root`, any dtype. */
  broadcast(x: Tensor, root: number): void {
    checkTensors("broadcast", x);
    loadAddon().commBroadcast(this.id, x.id, root);
  }

  /** Goes on once every rank got here. */
  barrier(): void {
    loadAddon().commBarrier(this.id);
  }

  /**
   * The bytes of rank `root`: for what ranks must know of one another before anything else.
   * @param bytes as many on every rank
   * @throws CommError with engine `nccl`, which carries device memory only.
   */
  async broadcastBytes(bytes: Uint8Array, root: number): Promise<Uint8Array> {
    const copy = Uint8Array.from(bytes);
    await loadAddon().commBroadcastBytes(this.id, copy, root);
    return copy;
  }

  /** Operations that have run, and the bytes of each kind that this rank has sent to others. */
  counters(): CommCounter[] {
    return loadAddon().commCounters(this.id);
  }

  /** The running operation and all later ones fail with CommError(reason). May be called at any time. */
  abort(reason: string): void {
    loadAddon().abortComm(this.id, reason);
  }

  /**
   * Takes leave of the other ranks after everything enqueued; all ranks call it. A communicator that has
   * failed waits for nobody.
   */
  async close(): Promise<void> {
    const what = `close: ${this.engine} has not parted from all ranks`;
    await within(this.#timeoutSeconds, loadAddon().closeComm(this.id), what);
  }
}

/**
 * The 128 bytes by which the ranks of an `nccl` communicator find one another: made by one, told to all.
 * @throws CommError where NCCL cannot be used.
 */
export function ncclUniqueId(): Uint8Array {
  return loadAddon().ncclUniqueId();
}

/** Rejects where the ranks do not come: a library that waits for them hears of no time-out. */
async function within(seconds: number, meeting: Promise<void>, what: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    const message = `${what} within ${seconds} s`;
    // An engine that can tell more does so first.
    const milliseconds = Math.min(1000 * seconds + 500, 2 ** 31 - 1);
    timer = setTimeout(() => reject(new CommError(message)), milliseconds);
  });
  try {
    await Promise.race([meeting, tooLate]);
  } finally {
    clearTimeout(timer);
  }
}

function checkOptions({ engine, rank, size, ...seconds }: CommOptions): void {
  const { timeoutSeconds, connectSeconds = timeoutSeconds } = seconds;
  for (const [name, value] of Object.entries({ timeoutSeconds, connectSeconds })) {
    if (!(value > 0)) throw new ContractError(`open: ${name} is ${value}, expected a number > 0`);
  }
  const known = rank !== undefined && size !== undefined;
  if (known && !(Number.isInteger(rank) && Number.isInteger(size) && rank >= 0 && rank < size)) {
    throw new ContractError(`open: rank ${rank} of ${size}, expected 0 <= rank < size`);
  }
  if (!known && (rank !== undefined || size !== undefined)) {
    throw new ContractError("open: rank and size are given together or not at all");
  }
  if (engine === "self" && size !== undefined && size !== 1) {
    throw new CommError(`open: the engine self is a world of one, expected size 1, got ${size}`);
  }
}

function checkTensors(method: string, ...tensors: readonly unknown[]): void {
  for (const tensor of tensors) checkTensor(method, tensor);
}
