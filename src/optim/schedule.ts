export type ScheduleType = "linear" | "cosine" | "constant" | "constant_with_warmup";

export interface ScheduleOptions {
  readonly type: ScheduleType;
  readonly learningRate: number;
  readonly totalSteps: number;
  /** Above 0 it wins over the ratio. */
  readonly warmupSteps: number;
  readonly warmupRatio: number;
}

/** Optimizer steps of linear warm-up: `warmupSteps`, else ceil(warmupRatio · totalSteps). */
export function warmupLength(options: ScheduleOptions): number {
  if (options.type === "constant") return 0;
  return options.warmupSteps > 0
    ? options.warmupSteps
    : Math.ceil(options.warmupRatio * options.totalSteps);
}

/**
 * Learning rate used in optimizer step `step` (from 1). As in transformers the schedule counts completed
 * steps, so step 1 of a warm-up runs at rate 0 and the last step just above 0.
 */
export function learningRate(options: ScheduleOptions, step: number): number {
  const done = step - 1;
  const warmup = warmupLength(options);
  if (done < warmup) return (options.learningRate * done) / Math.max(1, warmup);
  const progress = (done - warmup) / Math.max(1, options.totalSteps - warmup);
  switch (options.type) {
    case "cosine":
      return options.learningRate * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
    case "linear":
      return options.learningRate * Math.max(0, 1 - progress);
    default:
      return options.learningRate;
  }
}
