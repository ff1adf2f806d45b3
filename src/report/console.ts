import { profileTable } from "./profile.js";
import type { EvalRecord, Reporter, RunInfo, StepRecord } from "./records.js";
import { Window } from "./window.js";

/** Where the lines go and what that place can show; the defaults look at stderr and the environment. */
export interface ConsoleOptions {
  /** Default: standard error. */
  readonly write?: (text: string) => void;
  /** Redraw one live line; otherwise a plain line every `logging_steps`. */
  readonly live?: boolean;
  /** Use colours; default: on a terminal, unless NO_COLOR is set. */
  readonly color?: boolean;
  /** Width of the terminal; the live line is cut to it. */
  readonly columns?: () => number;
}

/** Codes of the terminal: util.styleText would ask stdout whether to colour, and these lines go to stderr. */
const sgr = { bold: 1, yellow: 33, cyan: 36 } as const;

/**
 * Progress for a person, on stderr: step/total, loss, accuracy, margin, tokens/s, pairs/s and the time
 * left. On a terminal one line is redrawn; elsewhere a line of means is printed every `logging_steps`.
 */
export function createConsoleReporter(options: ConsoleOptions = {}): Reporter {
  const { env, stderr } = process;
  const {
    write = (text) => void stderr.write(text),
    // A launcher that passes our lines on says how wide the terminal behind it is.
    live = (stderr.isTTY === true || Number(env.SIMPER_TERMINAL) > 0) && !env.CI,
    color = live && !env.NO_COLOR && env.TERM !== "dumb",
    columns = () => stderr.columns || Number(env.SIMPER_TERMINAL) || 80, // 0: a terminal that does not say
  } = options;
  const paint = (style: keyof typeof sgr, text: string): string =>
    color ? `\x1b[${sgr[style]}m${text}\x1b[0m` : text;
  const clear = live ? "\r\x1b[K" : "";
  let run: RunInfo | undefined;
  let drawn = "";
  const window = new Window();
  const pace = createPace();

  /** Prints a line that stays, and draws the live line again below it. */
  const print = (line: string): void => write(`${clear}${line}\n${drawn}`);

  return {
    start(info) {
      run = info;
      const name = info.runName ? `${info.runName}: ` : "";
      const from = info.resumedStep > 0 ? `, resumed after step ${info.resumedStep}` : "";
      print(paint("bold", `${name}${info.totalSteps} steps${from}; output in ${info.outputDir}`));
    },
    step(record) {
      const total = run!.totalSteps;
      pace.add(record.step_time);
      window.add(record);
      const eta = `ETA ${formatSeconds(pace.seconds() * (total - record.step))}`;
      if (live) {
        // Single spaces and short rates: all of it fits into 80 columns.
        const line = [...summary(record, total, compact), eta].join(" ");
        drawn = fit(line.replace(/^step /, ""), columns() - 1);
        write(clear + drawn);
      }
      if (record.step % run!.loggingSteps === 0 || record.step === total) {
        const mean = window.take();
        if (!live) {
          const detail = `lr ${short(record.learning_rate)} · grad ${short(record.grad_norm)}`;
          print([...summary(mean, total, whole), detail, eta].join(" · "));
        }
      }
    },
    eval(record) {
      print(`${paint("cyan", "eval")} ${evaluation(record)}`);
    },
    profile(record) {
      print(profileTable(record));
    },
    notice(text) {
      print(paint("yellow", text));
    },
    end({ step, interrupted, seconds }) {
      if (live && drawn !== "") write("\n");
      drawn = "";
      const what = interrupted ? `stopped after step ${step}` : `done after ${step} steps`;
      write(`${paint("bold", `${what} in ${formatSeconds(seconds)}`)}\n`);
    },
  };
}

/** `step 12/477`, `loss -0.0123`, `acc 0.63`, `margin 0.041`, `1234 tok/s`, `5.1 pairs/s`, as far as known. */
function summary(record: StepRecord, total: number, rate: (n: number) => string): string[] {
  const parts = [`step ${record.step}/${total}`, `loss ${fixed(record.loss)}`];
  const accuracy = record["rewards/accuracies"];
  const margin = record["rewards/margins"];
  if (accuracy !== undefined) parts.push(`acc ${accuracy.toFixed(2)}`);
  if (margin !== undefined) parts.push(`margin ${fixed(margin)}`);
  parts.push(`${rate(Math.round(record.tokens_per_second))} tok/s`);
  if (accuracy !== undefined) {
    const pairs = record.pairs_per_second;
    parts.push(`${pairs < 100 ? pairs.toFixed(1) : rate(Math.round(pairs))} pairs/s`);
  }
  return parts;
}

const whole = String;

/** `987`, `53.4k`, `1.2M`. */
function compact(n: number): string {
  if (n < 1e4) return String(n);
  return n < 1e6 ? `${(n / 1e3).toFixed(1)}k` : `${(n / 1e6).toFixed(1)}M`;
}

function evaluation(record: EvalRecord): string {
  const values = record as Readonly<Record<string, number | undefined>>;
  const parts = [`step ${record.step}`];
  const shown = [
    ["loss", "eval_loss"],
    ["acc", "eval_rewards/accuracies"],
    ["margin", "eval_rewards/margins"],
  ] as const;
  for (const [label, key] of shown) {
    const value = values[key];
    if (value !== undefined) parts.push(`${label} ${fixed(value)}`);
  }
  return parts.join(" · ");
}

/** Mean seconds of the latest steps: recent ones weigh more, so that ETA follows a change of pace. */
function createPace(): { add(seconds: number): void; seconds(): number } {
  const decay = 0.95;
  let weighted = 0;
  let weight = 0;
  return {
    add(seconds) {
      weighted = decay * weighted + seconds;
      weight = decay * weight + 1;
    },
    seconds: () => (weight > 0 ? weighted / weight : 0),
  };
}

/** `45s`, `3m05s`, `2h07m`, `3d04h`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (n: number): string => String(Math.floor(n)).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h${two((whole % 3600) / 60)}m`;
  return `${Math.floor(whole / 86400)}d${two((whole % 86400) / 3600)}h`;
}

function fit(line: string, width: number): string {
  return line.length <= width ? line : `${line.slice(0, Math.max(0, width - 1))}…`;
}

/** Four decimals; numbers that would vanish in them keep three digits. */
function fixed(value: number): string {
  return Math.abs(value) >= 0.001 || value === 0 ? value.toFixed(4) : value.toExponential(2);
}

function short(value: number): string {
  return value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(2) : value.toPrecision(3);
}
