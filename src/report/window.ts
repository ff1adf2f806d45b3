import { pairMetrics, type StepRecord } from "./records.js";

/** The steps since the last line was logged, as one record: what HF's `log_history` holds. */
export class Window {
  private records: StepRecord[] = [];

  add(record: StepRecord): void {
    this.records.push(record);
  }

  get isEmpty(): boolean {
    return this.records.length === 0;
  }

  /** Losses and pair metrics are means over the steps, counts and times are sums; the rest is the last step's. */
  take(): StepRecord {
    const records = this.records;
    this.records = [];
    const last = records.at(-1)!;
    // The loss of a skipped step is no number; where all were skipped there is none to show.
    const sound = records.some((record) => !record.skipped)
      ? records.filter((record) => !record.skipped)
      : records;
    const sum = (read: (record: StepRecord) => number | undefined): number =>
      records.reduce((total, record) => total + (read(record) ?? 0), 0);
    const mean = (read: (record: StepRecord) => number | undefined): number =>
      sound.reduce((total, record) => total + (read(record) ?? 0), 0) / sound.length;
    const seconds = sum((record) => record.step_time);
    const tokens = sum((record) => record.num_tokens);
    const pairs = sum((record) => record.pairs_per_second * record.step_time);
    const means: Partial<Record<(typeof pairMetrics)[number], number>> = {};
    for (const metric of pairMetrics) {
      if (last[metric] !== undefined) means[metric] = mean((record) => record[metric]);
    }
    return {
      ...last,
      ...means,
      loss: mean((record) => record.loss),
      num_tokens: tokens,
      num_computed_tokens: sum((record) => record.num_computed_tokens),
      step_time: seconds,
      tokens_per_second: seconds > 0 ? tokens / seconds : 0,
      pairs_per_second: seconds > 0 ? pairs / seconds : 0,
    };
  }
}
