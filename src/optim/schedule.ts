export type ScheduleType =
  | "linear"
  | "cosine"
  | "cosine_with_min_lr"
  | "constant"
  | "constant_with_warmup";

export interface ScheduleOptions {
  readonly type: ScheduleType;
  readonly learningRate: number;
  readonly totalSteps: number;
  /** Above 0 it wins over the ratio; below 1 it is a ratio itself. */
  readonly warmupSteps: number;
  readonly warmupRatio: number;
  /** Waves of a cosine after warm-up; default 0.5, from the peak to the end once. */
  readonly numCycles?: number;
  /** What `cosine_with_min_lr` ends at, as a fraction of the peak; default 0. */
  readonly minRatio?: number;
}

/** What a recipe says of `lr_scheduler_kwargs`, as options of a schedule. */
export function scheduleKwargs(
  kwargs:
    | { min_lr?: number | null; min_lr_rate?: number | null; num_cycles?: number | null }
    | null
    | undefined,
  learningRate: number,
): Pick<ScheduleOptions, "numCycles" | "minRatio"> {
  const { min_lr, min_lr_rate, num_cycles } = kwargs ?? {};
  const least = min_lr_rate ?? (learningRate > 0 ? (min_lr ?? 0) / learningRate : 0);
  return { minRatio: least, ...((num_cycles ?? null) === null ? {} : { numCycles: num_cycles! }) };
}

/** Optimizer steps of linear warm-up: `warmupSteps`, else ceil(warmupRatio · totalSteps). */
export function warmupLength(options: ScheduleOptions): number {
  const { type, totalSteps, warmupSteps, warmupRatio } = options;
  if (type === "constant") return 0;
  if (warmupSteps >= 1) return warmupSteps;
  return Math.ceil((warmupSteps > 0 ? warmupSteps : warmupRatio) * totalSteps);
}

/**
 * Learning rate used in optimizer step `step` (from 1). As in transformers the schedule counts completed
 * steps, so step 1 of a warm-up runs at rate 0 and the last step just above the end of the schedule.
 */
export function learningRate(options: ScheduleOptions, step: number): number {
  const { type, learningRate: peak, totalSteps, numCycles = 0.5, minRatio = 0 } = options;
  const done = step - 1;
  const warmup = warmupLength(options);
  if (done < warmup) return (peak * done) / Math.max(1, warmup);
  const progress = (done - warmup) / Math.max(1, totalSteps - warmup);
  const wave = 0.5 * (1 + Math.cos(Math.PI * numCycles * 2 * progress));
  switch (type) {
    case "cosine":
      return peak * Math.max(0, wave);
    case "cosine_with_min_lr":
      return peak * Math.max(0, wave * (1 - minRatio) + minRatio);
    case "linear":
      return peak * Math.max(0, 1 - progress);
    default:
      return peak;
  }
}
