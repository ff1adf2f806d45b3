import type { ProfileRecord } from "./profile.js";

/**
 * Means over the pairs of an optimizer step, and the SFT term before its weight; absent where the loss has no pairs, or
 * no such term.
 */
export const pairMetrics = [
  "rewards/chosen",
  "rewards/rejected",
  "rewards/accuracies",
  "rewards/margins",
  "logps/chosen",
  "logps/rejected",
  "simper/chosen",
  "simper/rejected",
  "sft_loss",
] as const;

/** One of {@link pairMetrics}. */
export type PairMetric = (typeof pairMetrics)[number];

/** One optimizer step, as a line of `metrics.jsonl` holds it. */
export type StepRecord = {
  /** Optimizer step, counted from 1. */
  readonly step: number;
  /** Position in the training data: 1.5 is half-way through the second epoch. */
  readonly epoch: number;
  /** Mean over the examples of the step. */
  readonly loss: number;
  /** Global gradient norm before clipping. */
  readonly grad_norm: number;
  /** True where the gradient was not finite and the step changed nothing (`on_nonfinite: skip`). */
  readonly skipped?: boolean;
  /** The rate used in this step. */
  readonly learning_rate: number;
  /** Tokens of the step's sequences. */
  readonly num_tokens: number;
  /** Tokens the model ran: fewer, where the two responses of a pair share their prompt. */
  readonly num_computed_tokens: number;
  /** Seconds. */
  readonly step_time: number;
  /** num_tokens / step_time. */
  readonly tokens_per_second: number;
  /** Examples of the step / step_time. */
  readonly pairs_per_second: number;
} & { readonly [metric in PairMetric]?: number };

/** One evaluation: `eval_loss`, `eval_rewards/accuracies` and so on. */
export type EvalRecord = {
  /** Optimizer steps done. */
  readonly step: number;
  /** Position in the training data. */
  readonly epoch: number;
} & { readonly [metric: `eval_${string}`]: number };

/** What is known when training starts. */
export interface RunInfo {
  /** The recipe's run_name. */
  readonly runName?: string | null;
  /** Folder of everything written. */
  readonly outputDir: string;
  /** Optimizer steps of the whole run. */
  readonly totalSteps: number;
  /** Step of the checkpoint that it goes on from; 0: none. */
  readonly resumedStep: number;
  /** The last step whose evaluation that checkpoint has (-1: none): it may have been written before its own. */
  readonly evaluatedStep?: number;
  /** Passes over the training data. */
  readonly numTrainEpochs: number;
  /** Optimizer steps between two lines on the console. */
  readonly loggingSteps: number;
  /** Optimizer steps between evaluations. */
  readonly evalSteps: number;
  /** Optimizer steps between checkpoints. */
  readonly saveSteps: number;
  /** Steps of the checkpoint that it goes on from, after the last that was logged: they belong to the next line. */
  readonly unloggedSteps?: readonly StepRecord[];
  /** The recipe's per_device_train_batch_size. */
  readonly perDeviceTrainBatchSize: number;
  /** Floating-point operations for a token, forward and backward; absent: not counted. */
  readonly flosPerToken?: number;
}

/** How training ended. */
export interface RunSummary {
  /** Optimizer steps done. */
  readonly step: number;
  /** True when the user stopped the run before its last step. */
  readonly interrupted: boolean;
  /** Seconds of training, without loading. */
  readonly seconds: number;
  /** What `train_results.json` holds; absent when the run was stopped. */
  readonly train?: Readonly<Record<string, number>>;
  /** What `eval_results.json` holds: the evaluation of the weights in output_dir; absent where there is none. */
  readonly eval?: Readonly<Record<string, number>>;
}

/** Receives what happens in a run, in order. Reporters never touch a device. */
export interface Reporter {
  /** Before the first step. */
  start(run: RunInfo): void;
  /** After each optimizer step, once its numbers are there. */
  step(record: StepRecord): void;
  /** After each evaluation. */
  eval(record: EvalRecord): void;
  /** Once, after the last step that was to be profiled. */
  profile?(record: ProfileRecord): void;
  /** A sentence for the user. */
  notice(text: string): void;
  /** After the last step, or when the run was stopped. */
  end(summary: RunSummary): void;
}

/** Passes everything on to several reporters. */
export function combineReporters(reporters: readonly Reporter[]): Reporter {
  const each = (tell: (reporter: Reporter) => void): void => {
    for (const reporter of reporters) tell(reporter);
  };
  return {
    start: (run) => each((reporter) => reporter.start(run)),
    step: (record) => each((reporter) => reporter.step(record)),
    eval: (record) => each((reporter) => reporter.eval(record)),
    profile: (record) => each((reporter) => reporter.profile?.(record)),
    notice: (text) => each((reporter) => reporter.notice(text)),
    end: (summary) => each((reporter) => reporter.end(summary)),
  };
}
