import type { EvalRecord, Reporter, RunInfo, StepRecord } from "./records.js";
import { Window } from "./window.js";

/** Where the steps since the last logged line stand: transformers ignores states it has no callback for. */
const PENDING = "SimperNativeWindow";

/** The evaluation that was best so far. */
export interface Best {
  /** Value of metric_for_best_model. */
  readonly metric: number;
  /** Folder of the checkpoint written after it. */
  readonly checkpoint: string;
}

/** A reporter that keeps what transformers' `trainer_state.json` holds. */
export interface TrainerState extends Reporter {
  /** Written as `best_metric` and `best_model_checkpoint`. */
  best: Best | undefined;
  /** Mean loss over all steps of the run, those before a resume included; skipped steps have none. */
  trainLoss(): number;
  /** Floating-point operations of all steps. */
  totalFlos(): number;
  /** The last evaluation after `step`, as `log_history` holds it. */
  evaluation(step: number): Readonly<Record<string, number>> | undefined;
  /** `log_history` so far: means over `logging_steps`, and evaluations. */
  history(): readonly Readonly<Record<string, number>>[];
  /** The file's content after the steps reported so far; the caller writes it. */
  toJson(): string;
}

/**
 * Collects the log history of a run: the mean over every `logging_steps` steps, and every evaluation.
 *
 * @param earlier - content of the checkpoint's `trainer_state.json` when a run is resumed
 * @param best - the best evaluation before that
 * @example
 * const state = createTrainerState();
 * state.start(run);
 * await writeFileAtomic(path.join(outputDir, "trainer_state.json"), state.toJson());
 */
export function createTrainerState(earlier?: string, best?: Best): TrainerState {
  const history: Record<string, number>[] = [];
  const window = new Window();
  let run: RunInfo | undefined;
  let step = 0;
  let epoch = 0;
  let tokens = 0;
  let losses = { sum: 0, steps: 0 };
  // Steps between the last logged line and the checkpoint: without them a resumed run would log other means.
  let pending: StepRecord[] = [];

  const log = (): void => {
    const { step, epoch, step_time: _time, skipped: _skipped, ...metrics } = window.take();
    history.push({ ...metrics, epoch, step });
    pending = [];
  };
  const totalFlos = () => tokens * (run?.flosPerToken ?? 0);
  return {
    get best() {
      return best;
    },
    set best(found) {
      best = found;
    },
    start(info) {
      run = info;
      if (earlier === undefined || info.resumedStep === 0) return;
      const saved = JSON.parse(earlier) as Saved;
      step = saved.global_step;
      epoch = saved.epoch;
      tokens = saved.num_input_tokens_seen;
      history.push(...saved.log_history);
      const own = saved.stateful_callbacks[PENDING]?.attributes;
      losses = own?.losses ?? losses;
      pending = [...(own?.steps ?? [])];
      for (const record of pending) window.add(record);
    },
    step(record) {
      ({ step, epoch } = record);
      tokens += record.num_tokens;
      if (!record.skipped) losses = { sum: losses.sum + record.loss, steps: losses.steps + 1 };
      window.add(record);
      pending.push(record);
      if (step % run!.loggingSteps === 0 || step === run!.totalSteps) log();
    },
    eval(record) {
      const { step, epoch, ...metrics } = record as EvalRecord & Record<string, number>;
      history.push({ ...metrics, epoch, step });
    },
    notice() {},
    end({ seconds, step, train }) {
      if (!window.isEmpty) log();
      const { train_samples: _samples, ...metrics } = train ?? { train_runtime: seconds };
      history.push({ ...metrics, epoch, step });
    },
    trainLoss: () => losses.sum / losses.steps,
    totalFlos,
    history: () => history,
    evaluation: (step) =>
      history.findLast((entry) => entry.step === step && entry.eval_loss !== undefined),
    toJson() {
      const saved: Saved = {
        best_metric: best?.metric ?? null,
        best_model_checkpoint: best?.checkpoint ?? null,
        epoch,
        eval_steps: run!.evalSteps,
        global_step: step,
        is_hyper_param_search: false,
        is_local_process_zero: true,
        is_world_process_zero: true,
        log_history: history,
        logging_steps: run!.loggingSteps,
        max_steps: run!.totalSteps,
        num_input_tokens_seen: tokens,
        num_train_epochs: Math.ceil(run!.numTrainEpochs),
        save_steps: run!.saveSteps,
        stateful_callbacks: { [PENDING]: { args: {}, attributes: { steps: pending, losses } } },
        total_flos: totalFlos(),
        train_batch_size: run!.perDeviceTrainBatchSize,
        trial_name: null,
        trial_params: null,
      };
      return `${JSON.stringify(saved, null, 2)}\n`;
    },
  };
}

/** The steps after the last logged line, from the content of a checkpoint's `trainer_state.json`. */
export function unloggedSteps(earlier: string | undefined): readonly StepRecord[] {
  if (earlier === undefined) return [];
  return (JSON.parse(earlier) as Saved).stateful_callbacks[PENDING]?.attributes.steps ?? [];
}

/** The fields of transformers' TrainerState, which refuses others. */
interface Saved {
  best_metric: number | null;
  best_model_checkpoint: string | null;
  epoch: number;
  eval_steps: number;
  global_step: number;
  is_hyper_param_search: boolean;
  is_local_process_zero: boolean;
  is_world_process_zero: boolean;
  log_history: Record<string, number>[];
  logging_steps: number;
  max_steps: number;
  num_input_tokens_seen: number;
  num_train_epochs: number;
  save_steps: number;
  stateful_callbacks: Record<string, { args: object; attributes: Unlogged }>;
  total_flos: number;
  train_batch_size: number;
  trial_name: null;
  trial_params: null;
}

/** What the log does not show yet: steps after its last line, and the sum of all losses. */
interface Unlogged {
  steps: StepRecord[];
  losses?: { sum: number; steps: number };
}
