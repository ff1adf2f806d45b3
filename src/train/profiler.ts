import { ConfigError } from "../errors.js";
import type { Stream } from "../native/index.js";
import { type OpTotal, type ProfileRecord, profileRecord } from "../report/index.js";

/** Optimizer steps `first` to `last`, both included, counted from 1. */
export interface StepRange {
  /** First step. */
  readonly first: number;
  /** Last step, not before the first. */
  readonly last: number;
}

/** What to profile: a range, or every step of the run but its first, which also warms caches up. */
export type ProfileRequest = true | StepRange;

/** @throws ConfigError where the range is none. */
export function checkProfileRequest(request: ProfileRequest): void {
  if (request === true) return;
  const { first, last } = request;
  if (Number.isSafeInteger(first) && Number.isSafeInteger(last) && first >= 1 && last >= first)
    return;
  throw new ConfigError(
    `profile: expected steps first:last with 1 <= first <= last, received ${first}:${last}`,
  );
}

/**
 * The steps to profile of a run that goes on from `resumedStep` (0: anew) and ends at `totalSteps`.
 *
 * @throws ConfigError where the run has none of them, or only some.
 */
export function profileRange(
  request: ProfileRequest,
  resumedStep: number,
  totalSteps: number,
): StepRange {
  if (request === true) {
    const range = { first: resumedStep + 2, last: totalSteps };
    if (range.first <= range.last) return range;
    const left = Math.max(0, totalSteps - resumedStep);
    throw new ConfigError(
      `profile: it leaves out the first step of a run, and this run has ${left === 1 ? "one step" : "no step"} left`,
      { hint: `name the steps, such as ${totalSteps}:${totalSteps}, or train for more of them` },
    );
  }
  const { first, last } = request;
  if (first > resumedStep && last <= totalSteps) return { first, last };
  const begins = resumedStep > 0 ? ` (it goes on from the checkpoint of step ${resumedStep})` : "";
  throw new ConfigError(
    `profile: expected steps from ${resumedStep + 1} to ${totalSteps}, those of this run${begins}, ` +
      `received ${first}:${last}`,
  );
}

/**
 * Sums up where the stream's time goes in a range of steps. The stream is drained where measuring begins and
 * ends, so that exactly these steps count, and nowhere else: within the range steps overlap as always.
 */
export class Profiler {
  readonly #stream: Stream;
  readonly #range: StepRange;
  readonly #totals = new Map<string, { calls: number; seconds: number }>();
  #seconds = 0;
  /** When measuring began, in ms; undefined while it rests. */
  #since: number | undefined;
  #lastStep = 0;

  constructor(stream: Stream, range: StepRange) {
    this.#stream = stream;
    this.#range = range;
  }

  /** To be called before the first op of a step is enqueued. */
  async before(step: number): Promise<void> {
    const { first, last } = this.#range;
    if (this.#since !== undefined || step < first || step > last) return;
    await this.#stream.done();
    this.#stream.profiling(true);
    this.#stream.takeProfile(); // what ran before
    this.#since = performance.now();
  }

  /** To be called after the last op of a step is enqueued; true when it was the last to measure. */
  after(step: number): boolean {
    if (this.#since !== undefined) this.#lastStep = step;
    return step === this.#range.last;
  }

  /** Stops measuring until the next step, for an evaluation or a checkpoint. */
  async rest(): Promise<void> {
    if (this.#since === undefined) return;
    await this.#stream.done();
    this.#seconds += (performance.now() - this.#since) / 1e3;
    this.#since = undefined;
    this.#stream.profiling(false);
    for (const { op, calls, seconds } of this.#stream.takeProfile()) {
      const total = this.#totals.get(op) ?? { calls: 0, seconds: 0 };
      total.calls += calls;
      total.seconds += seconds;
      this.#totals.set(op, total);
    }
  }

  /** The steps measured; undefined where the run ended before the first of them. */
  record(): ProfileRecord | undefined {
    if (this.#lastStep === 0) return undefined;
    const totals = [...this.#totals].map(([op, times]): OpTotal => ({ op, ...times }));
    return profileRecord(this.#range.first, this.#lastStep, this.#seconds, totals);
  }
}
