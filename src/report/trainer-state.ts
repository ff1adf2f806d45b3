import type { EvalRecord, Reporter, RunInfo, StepRecord } from "./records.js";
import { Window } from "./window.js";

/** Where the steps since the last logged line stand: transformers ignores states it has no callback for. */
const PENDING = "SimperNativeWindow";

/** A reporter that keeps what transformers' `trainer_state.json` holds. */
export interface TrainerState extends Reporter {
  /** The file's content after the steps reported so far; the caller writes it. */
  toJson(): string;
}

/**
 * Collects the log history of a run: the mean over every `logging_steps` steps, and every evaluation.
 *
 * @param earlier - content of the checkpoint's `trainer_state.json` when a run is resumed
 * @example
 * const state = createTrainerState();
 * state.start(run);
 * await writeFileAtomic(path.join(outputDir, "trainer_state.json"), state.toJson());
 */
export function createTrainerState(earlier?: string): TrainerState {
  const history: Record<string, number>[] = [];
  const window = new Window();
  let run: RunInfo | undefined;
  let step = 0;
  let epoch = 0;
  let tokens = 0;
  // Steps between the last logged line and the checkpoint: without them a resumed run would log other means.
  let pending: StepRecord[] = [];

  const log = (): void => {
    const { step, epoch, step_time: _time, skipped: _skipped, ...metrics } = window.take();
    history.push({ ...metrics, epoch, step });
    pending = [];
  };
  return {
    start(info) {
      run = info;
      if (earlier === undefined || info.resumedStep === 0) return;
      const saved = JSON.parse(earlier) as Saved;
      step = saved.global_step;
      epoch = saved.epoch;
      tokens = saved.num_input_tokens_seen;
      history.push(...saved.log_history);
      pending = [...(saved.stateful_callbacks[PENDING]?.attributes.steps ?? [])];
      for (const record of pending) window.add(record);
    },
    step(record) {
      ({ step, epoch } = record);
      tokens += record.num_tokens;
      window.add(record);
      pending.push(record);
      if (step % run!.loggingSteps === 0 || step === run!.totalSteps) log();
    },
    eval(record) {
      const { step, epoch, ...metrics } = record as EvalRecord & Record<string, number>;
      history.push({ ...metrics, epoch, step });
    },
    notice() {},
    end({ seconds, step }) {
      if (!window.isEmpty) log();
      history.push({ epoch, step, train_runtime: seconds });
    },
    toJson() {
      const saved: Saved = {
        best_metric: null,
        best_model_checkpoint: null,
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
        stateful_callbacks: { [PENDING]: { args: {}, attributes: { steps: pending } } },
        total_flos: 0,
        train_batch_size: run!.perDeviceTrainBatchSize,
        trial_name: null,
        trial_params: null,
      };
      return `${JSON.stringify(saved, null, 2)}\n`;
    },
  };
}

/** The fields of transformers' TrainerState, which refuses others. */
interface Saved {
  best_metric: null;
  best_model_checkpoint: null;
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
  stateful_callbacks: Record<string, { args: object; attributes: { steps: StepRecord[] } }>;
  total_flos: number;
  train_batch_size: number;
  trial_name: null;
  trial_params: null;
}
