/** Means over the pairs of an optimizer step; absent where the loss has no pairs. */
export const pairMetrics = [
  "rewards/chosen",
  "rewards/rejected",
  "rewards/accuracies",
  "rewards/margins",
  "logps/chosen",
  "logps/rejected",
  "simper/chosen",
  "simper/rejected",
] as const;

export type PairMetric = (typeof pairMetrics)[number];

/** One optimizer step, as a line of `metrics.jsonl` holds it. */
export type StepRecord = {
  readonly step: number;
  /** Position in the training data: 1.5 is half-way through the second epoch. */
  readonly epoch: number;
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
  readonly tokens_per_second: number;
  readonly pairs_per_second: number;
} & { readonly [metric in PairMetric]?: number };

/** One evaluation: `eval_loss`, `eval_rewards/accuracies` and so on. */
export type EvalRecord = {
  readonly step: number;
  readonly epoch: number;
} & { readonly [metric: `eval_${string}`]: number };

/** What is known when training starts. */
export interface RunInfo {
  readonly runName?: string | null;
  readonly outputDir: string;
  /** Optimizer steps of the whole run, and the step of the checkpoint it goes on from (0: none). */
  readonly totalSteps: number;
  readonly resumedStep: number;
  readonly numTrainEpochs: number;
  readonly loggingSteps: number;
  readonly evalSteps: number;
  readonly saveSteps: number;
  readonly perDeviceTrainBatchSize: number;
}

/** How training ended. */
export interface RunSummary {
  readonly step: number;
  /** True when the user stopped the run before its last step. */
  readonly interrupted: boolean;
  /** Seconds of training, without loading. */
  readonly seconds: number;
}

/** Receives what happens in a run, in order. Reporters never touch a device. */
export interface Reporter {
  start(run: RunInfo): void;
  step(record: StepRecord): void;
  eval(record: EvalRecord): void;
  /** A sentence for the user. */
  notice(text: string): void;
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
    notice: (text) => each((reporter) => reporter.notice(text)),
    end: (summary) => each((reporter) => reporter.end(summary)),
  };
}
