import type { Event, Window } from "../native/index.js";
import type { Session } from "./session.js";
import type { World } from "./world.js";

/** Means and loss terms of a step's responses, over all ranks, in the order of the results. */
export interface StepResult {
  /** (R) mean log-prob of each response. */
  readonly means: Float32Array;
  /** (R) terms whose sum is the loss. */
  readonly losses: Float32Array;
  /** Whether a rank had been asked to stop when it enqueued the step; with one process the question is not sent. */
  readonly stop: boolean;
}

/**
 * Brings the results of a step to every rank. Each rank writes those of its own micro-batches at their places in
 * buffers of zeros, and the buffers are summed: x + 0 is exact, so that all ranks compute the same metrics, and those
 * of one process. A request to stop travels with them as one more number, so that all ranks end after the same step.
 */
export class StepResults {
  readonly #session: Session;
  readonly #world: World | undefined;
  readonly #asked: () => boolean;
  readonly #means: Window;
  readonly #losses: Window;
  /** The rows are written; the rows are read. */
  readonly #written: Event | undefined;
  readonly #read: Event | undefined;
  #shared: Promise<StepResult> | undefined;
  #rows = 0;
  #agreed = false;

  /** @param asked whether this process has been asked to stop */
  constructor(session: Session, world: World | undefined, asked: () => boolean) {
    this.#session = session;
    this.#world = world;
    this.#asked = asked;
    this.#means = session.buffers.tensor("means").window();
    this.#losses = session.buffers.tensor("losses").window();
    if (world === undefined) return;
    this.#written = session.device.event();
    this.#read = session.device.event();
  }

  /** Whether the run is to end early. Several ranks get the same answer at the same place of the run. */
  stopped(): boolean {
    return this.#world === undefined ? this.#asked() : this.#agreed;
  }

  /** Asks all ranks whether one of them has been asked to stop; they have to call it at the same place. */
  async ask(): Promise<void> {
    if (this.#world === undefined) return;
    const asked = await this.#world.group.gather("stop", this.#asked());
    this.#agreed ||= asked.some(Boolean);
  }

  /** What the results of a step say of a stop holds from here on: call it where all ranks have read them. */
  accept({ stop }: Pick<StepResult, "stop">): void {
    this.#agreed ||= stop;
  }

  /** To be called before the first micro-batch of a step with `rows` responses over all ranks. */
  begin(rows: number): void {
    if (this.#world === undefined) return;
    const { stream } = this.#session;
    if (this.#shared) stream.wait(this.#read!);
    stream.fill(this.#means.set(0, rows), 0);
    stream.fill(this.#losses.set(0, rows), 0);
  }

  /**
   * To be called after the last micro-batch and before the update of the weights: what the ranks then send each other
   * would hold the results up, and with them the next step.
   */
  share(rows: number): void {
    this.#rows = rows;
    if (this.#world === undefined) return;
    const { stream } = this.#session;
    const { comm, stream: communication } = this.#world;
    stream.write(this.#losses.set(rows, 1), Float32Array.of(this.#asked() ? 1 : 0));
    stream.record(this.#written!);
    communication.wait(this.#written!);
    comm.allReduce(this.#means.set(0, rows));
    comm.allReduce(this.#losses.set(0, rows + 1));
    const read = (window: Window) => communication.read(window) as Promise<Float32Array>;
    const reads = [read(this.#means.set(0, rows)), read(this.#losses.set(0, rows + 1))] as const;
    communication.record(this.#read!);
    this.#shared = Promise.all(reads).then(([means, losses]) => ({
      means,
      losses: losses.subarray(0, rows),
      stop: losses[rows]! > 0,
    }));
    this.#shared.catch(() => {}); // rejections are seen where the results are awaited
  }

  /** The results of the step that was shared last, once they are there. */
  async read(): Promise<StepResult> {
    if (this.#world !== undefined) return this.#shared!;
    return { ...(await this.#session.readResponses(this.#rows)), stop: false };
  }

  /** Frees what it owns besides the session's buffers. */
  dispose(): void {
    this.#written?.dispose();
    this.#read?.dispose();
  }
}
