import type { EvalRecord, Reporter, RunInfo, RunSummary, StepRecord } from "./records.js";
import { Window } from "./window.js";

/** A receiver of what transformers would log: means over `logging_steps`, under its names. */
export interface LogSink {
  /** Before the first step. */
  open(run: RunInfo): void;
  /** `train/loss`, `eval/rewards/margins` and so on, at an optimizer step. */
  log(step: number, values: Readonly<Record<string, number>>): void;
  /** After the last line. */
  close(): void;
}

/**
 * A reporter that passes on a line every `logging_steps`, of means over these steps, and every evaluation.
 * Names are those of transformers' integrations: `eval_loss` is `eval/loss`, all else `train/…`.
 */
export function createLogReporter(sink: LogSink): Reporter {
  const window = new Window();
  let run: RunInfo | undefined;
  const flush = (): void => {
    const { step, skipped: _skipped, step_time: _time, ...values } = window.take();
    sink.log(step, named("train/", values));
  };
  return {
    start(info) {
      run = info;
      for (const record of info.unloggedSteps ?? []) window.add(record);
      sink.open(info);
    },
    step(record: StepRecord) {
      window.add(record);
      const { loggingSteps, totalSteps } = run!;
      if (record.step % loggingSteps === 0 || record.step === totalSteps) flush();
    },
    eval({ step, epoch, ...values }: EvalRecord & Readonly<Record<string, number>>) {
      const plain = Object.entries(values).map(([key, value]) => [
        key.replace(/^eval_/, ""),
        value,
      ]);
      sink.log(step, named("eval/", Object.fromEntries(plain)));
    },
    notice() {},
    end({ step, seconds }: RunSummary) {
      if (!window.isEmpty) flush();
      sink.log(step, { "train/train_runtime": seconds });
      sink.close();
    },
  };
}

function named(prefix: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [prefix + key, value]));
}
