import { CommError, markReported, SimperError } from "../errors.js";
import type { ProcessGroup } from "./group.js";
import type { Ranks } from "./ranks.js";
import type { Message, Wire } from "./wire.js";

/** Bounds of a group, in seconds. */
export interface GroupLimits {
  /** Until every rank has connected. */
  readonly connect: number;
  /** Without a sign of life of a rank. */
  readonly silence: number;
  /** Until every rank has made a call that one has made. */
  readonly call: number;
}

/** The place of a process in its run. */
export type Place = Pick<Ranks, "rank" | "size" | "localRank" | "localSize">;

/** What ranks do together; `close` is the last of all. */
export type CallKind = "gather" | "broadcast" | "barrier" | "close";

/** A call under way on this rank. */
interface Pending {
  readonly kind: CallKind;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** Something that a rank does is told to the others at most this often, in milliseconds. */
const DOING_MS = 100;

/**
 * What the hub (rank 0) and the members of a group over TCP have in common: calls by number, signs of life, and one
 * failure that ends everything. Connections keep the process alive only while a call is under way.
 */
export abstract class TcpGroup implements ProcessGroup {
  readonly rank: number;
  readonly size: number;
  readonly localRank: number;
  readonly localSize: number;
  protected readonly limits: GroupLimits;
  /** Whether the run ends well: connections may close. */
  protected leaving = false;
  readonly #pending = new Map<number, Pending>();
  readonly #failure = new AbortController();
  readonly #ticker: NodeJS.Timeout;
  readonly #tickMs: number;
  #lastTick = performance.now();
  #calls = 0;
  #doing = "";
  #doingSent = 0;
  #doingTimer: NodeJS.Timeout | undefined;

  protected constructor({ rank, size, localRank, localSize }: Place, limits: GroupLimits) {
    this.rank = rank;
    this.size = size;
    this.localRank = localRank;
    this.localSize = localSize;
    this.limits = limits;
    this.#tickMs = Math.min(5000, (limits.silence * 1e3) / 5);
    this.#ticker = setInterval(() => this.#tick(), this.#tickMs).unref();
  }

  get failure(): AbortSignal {
    return this.#failure.signal;
  }

  gather<T>(what: string, value: T): Promise<T[]> {
    return this.#call("gather", what, value) as Promise<T[]>;
  }

  broadcast<T>(what: string, value: T): Promise<T> {
    // Only rank 0's counts; the others' need not travel.
    return this.#call("broadcast", what, this.rank === 0 ? value : null) as Promise<T>;
  }

  async barrier(what: string): Promise<void> {
    await this.#call("barrier", what, null);
  }

  doing(what: string): void {
    this.#doing = what;
    const wait = this.#doingSent + DOING_MS - performance.now();
    if (wait <= 0) this.#sendDoing();
    else this.#doingTimer ??= setTimeout(() => this.#sendDoing(), wait).unref();
  }

  async fail(error: unknown): Promise<void> {
    if (this.leaving) return;
    const first = !this.failure.aborted;
    if (first) this.failed(ownFailure(this.rank, error));
    // Rank 0 prints what it knows of; where it knew of another failure before, that one is the cause.
    if (await this.tellFailure(error, first)) markReported(error);
  }

  async close(): Promise<void> {
    try {
      await this.#call("close", "end of the run", null);
    } finally {
      this.stop();
      await this.disconnect();
    }
  }

  /** This rank has made call `number`. */
  protected abstract enter(number: number, kind: CallKind, what: string, value: unknown): void;
  /** The connections to others. */
  protected abstract wires(): Iterable<readonly [rank: number, wire: Wire]>;
  /** A rank has given no sign of life for too long. */
  protected abstract silent(rank: number): void;
  /** Tells others of an error of this rank: whether another rank prints it. `first`: none was known before. */
  protected abstract tellFailure(error: unknown, first: boolean): Promise<boolean>;
  /** Looks for calls that take too long. */
  protected checkCalls(): void {}

  /** Ends the signs of life. */
  protected stop(): void {
    clearInterval(this.#ticker);
    clearTimeout(this.#doingTimer);
  }

  protected async disconnect(): Promise<void> {
    await Promise.all([...this.wires()].map(([, wire]) => wire.end()));
  }

  /** The result of a call on this rank. */
  protected settle(number: number, value: unknown): void {
    const call = this.#pending.get(number);
    this.#pending.delete(number);
    this.holdProcess();
    if (call?.kind === "close") this.leaving = true;
    call?.resolve(value);
  }

  /** The run has failed: the first reason counts, and everything under way rejects with it. */
  protected failed(reason: CommError): void {
    if (this.failure.aborted || this.leaving) return;
    this.stop();
    const calls = [...this.#pending.values()];
    this.#pending.clear();
    this.holdProcess();
    this.#failure.abort(reason);
    for (const call of calls) call.reject(reason);
  }

  #call(kind: CallKind, what: string, value: unknown): Promise<unknown> {
    if (this.failure.aborted) return Promise.reject(this.failure.reason);
    const number = ++this.#calls;
    return new Promise((resolve, reject) => {
      this.#pending.set(number, { kind, resolve, reject });
      this.holdProcess();
      this.enter(number, kind, what, value);
    });
  }

  /** Whether a call is under way. */
  protected get waiting(): boolean {
    return this.#pending.size > 0;
  }

  /** Lets the process end by itself when nothing is under way, and only then. */
  protected holdProcess(): void {
    for (const [, { socket }] of this.wires()) hold(socket, this.waiting);
  }

  #sendDoing(): void {
    clearTimeout(this.#doingTimer);
    this.#doingTimer = undefined;
    this.#doingSent = performance.now();
    for (const [, wire] of this.wires()) wire.send({ type: "doing", text: this.#doing });
  }

  #tick(): void {
    const now = performance.now();
    // A process that slept itself (stopped, or busy with one long piece of work) has not heard of others meanwhile.
    const slept = now - this.#lastTick > 2 * this.#tickMs + 100;
    this.#lastTick = now;
    for (const [rank, wire] of this.wires()) {
      if (slept) wire.lastSeen = now;
      wire.send({ type: "beat" });
      if (now - wire.lastSeen > this.limits.silence * 1e3) this.silent(rank);
    }
    if (!this.failure.aborted) this.checkCalls();
  }
}

/** `barrier "checkpoint-10"`, for error messages. */
export function describeCall(kind: CallKind, what: string): string {
  return `${kind} ${JSON.stringify(what)}`;
}

/** What a rank is known to do, for the error when it is lost. */
export class Peer {
  /** What it said last. */
  doing = "";
  /** The call that it waits in. */
  call: string | undefined;

  /** ` in step 7`, ` in barrier "saved"`, or nothing. */
  toString(): string {
    const what = this.call ?? this.doing;
    return what === "" ? "" : ` in ${what}`;
  }
}

/** The error of a rank whose connection is gone. */
export function lostError(rank: number, peer: Peer, why: string): CommError {
  return new CommError(`rank ${rank} was lost${peer}: ${why}`, {
    rank,
    hint: "it was killed (out of memory?) or has ended: see its own output and its machine's log; the last checkpoint is intact",
  });
}

/** The error of a rank that is connected and says nothing. */
export function silentError(rank: number, peer: Peer, seconds: number): CommError {
  return new CommError(`rank ${rank} gave no sign of life for ${seconds} s${peer}`, {
    rank,
    hint: "it is stopped or stuck, or its machine cannot be reached; SIMPER_RANK_TIMEOUT=<seconds> waits longer",
  });
}

/** What other ranks are told of an error. */
export function errorMessage(error: unknown): Message {
  const message = error instanceof Error ? error.message || error.name : String(error);
  const hint = error instanceof SimperError ? error.hint : undefined;
  return { type: "error", message, ...(hint !== undefined && { hint }) };
}

/** The failure of a rank that told of an error. */
export function failureFrom(rank: number, { message, hint }: Message): CommError {
  const options = { rank, ...(typeof hint === "string" && { hint }) };
  return new CommError(`rank ${rank}: ${String(message)}`, options);
}

/** Whether a handle keeps its process alive. */
export function hold(handle: { ref(): unknown; unref(): unknown }, wanted: boolean): void {
  if (wanted) handle.ref();
  else handle.unref();
}

function ownFailure(rank: number, error: unknown): CommError {
  if (error instanceof CommError && error.rank !== undefined) return error;
  const own = failureFrom(rank, errorMessage(error));
  return new CommError(own.message, { rank, hint: own.hint, cause: error });
}
