/** Mean over the steps of a profile: how often something ran, and for how long. */
export interface ProfileLine {
  /** Name in the op table, or `write`, `read`. */
  readonly op: string;
  /** How often it ran. */
  readonly calls_per_step: number;
  /** Time of all calls together, in ms. */
  readonly ms_per_step: number;
  /** Share of the step's time, 0 to 1. */
  readonly share: number;
}

/** Where the time of some optimizer steps went, as `profile.json` holds it. */
export interface ProfileRecord {
  /** First step measured, counted from 1. */
  readonly first_step: number;
  /** Last step measured. */
  readonly last_step: number;
  /** Steps measured: all of them, first and last included. */
  readonly steps: number;
  /** Seconds per step, without the evaluations and checkpoints in between. */
  readonly step_time: number;
  /** What ran on the device, by time. */
  readonly ops: readonly ProfileLine[];
  /** What is left of the step: the device waited for work. */
  readonly outside_ops: Omit<ProfileLine, "op" | "calls_per_step">;
}

/** Time of an op over all steps of a profile. */
export interface OpTotal {
  readonly op: string;
  readonly calls: number;
  readonly seconds: number;
}

/** Makes the record of steps `first` to `last`, which took `seconds` together. */
export function profileRecord(
  first: number,
  last: number,
  seconds: number,
  totals: readonly OpTotal[],
): ProfileRecord {
  const steps = last - first + 1;
  const times = (part: number) => ({
    ms_per_step: (1e3 * part) / steps,
    share: part / seconds,
  });
  const ops = totals
    .toSorted((a, b) => b.seconds - a.seconds)
    .map(({ op, calls, seconds }) => ({ op, calls_per_step: calls / steps, ...times(seconds) }));
  const inside = totals.reduce((sum, total) => sum + total.seconds, 0);
  return {
    first_step: first,
    last_step: last,
    steps,
    step_time: seconds / steps,
    ops,
    outside_ops: times(Math.max(0, seconds - inside)),
  };
}

/**
 * The record as a table for a person:
 *
 *     op           calls/step  ms/step  % of step
 *     matmul_add         21.0   120.41       98.6
 *     outside ops                 1.73        1.4
 */
export function profileTable(record: ProfileRecord): string {
  const cells = [
    ["op", "calls/step", "ms/step", "% of step"],
    ...record.ops.map(({ op, calls_per_step, ms_per_step, share }) => [
      op,
      calls_per_step.toFixed(1),
      milliseconds(ms_per_step),
      percent(share),
    ]),
    [
      "outside ops",
      "",
      milliseconds(record.outside_ops.ms_per_step),
      percent(record.outside_ops.share),
    ],
  ];
  const widths = [0, 1, 2, 3].map((c) => Math.max(...cells.map((row) => row[c]!.length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, c) => (c === 0 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!)))
      .join("  ");
  const { first_step, last_step, step_time } = record;
  const which =
    first_step === last_step ? `step ${first_step}` : `steps ${first_step}-${last_step}`;
  const title = `profile of ${which}: ${milliseconds(1e3 * step_time)} ms per step`;
  return [title, ...cells.map(line)].join("\n");
}

function milliseconds(ms: number): string {
  return ms.toFixed(2);
}

function percent(share: number): string {
  return (100 * share).toFixed(1);
}
