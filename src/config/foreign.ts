/**
 * Keys that recipes written for TRL and alignment-handbook carry and that this project does not act on.
 * Where leaving a key aside changes no number it is accepted and named in a notice; where it would, the
 * recipe is refused. Never silently ignored.
 */
export interface ForeignKey {
  /** Why the key changes nothing here, or what asking for it would need. */
  readonly reason: string;
  /** Values that ask for nothing, so that there is nothing to say. */
  readonly idle: readonly unknown[];
  readonly refused: boolean;
}

const OFF = [false, null, "no", "none", 0, ""] as const;

/** Accepted; any value that is not idle is named in the notice. */
function noEffect(reason: string, idle: readonly unknown[] = [null]): ForeignKey {
  return { reason, idle, refused: false };
}

/** Accepted with the idle values only. */
function refused(reason: string, idle: readonly unknown[] = OFF): ForeignKey {
  return { reason, idle, refused: true };
}

const ownKernels = "attention and memory layout are this package's own";
const noHub = "nothing is uploaded";
const noLora = "adapters are not supported; all weights are trained";
const ownLogs = "progress goes to stderr, metrics to metrics.jsonl";
const ownWorkers = "rows are prepared in one process and cached";
const trainer = "it steers the Python trainer only";

export const foreignKeys: Readonly<Record<string, ForeignKey>> = {
  // Model
  attn_implementation: noEffect(ownKernels),
  use_flash_attention_2: noEffect(ownKernels),
  use_liger_kernel: noEffect(ownKernels),
  use_cache: noEffect(ownKernels),
  gradient_checkpointing_kwargs: noEffect("there is one way to recompute a block"),
  trust_remote_code: noEffect("code from a model repository is never run", [null, false]),
  model_revision: refused("a model directory has no revisions", [null, "main"]),
  tokenizer_name_or_path: refused("the tokenizer is read from the model directory", [null]),
  fp16: refused("half precision is not supported yet; use bf16: true"),
  tf32: noEffect("f32 arithmetic stays f32", [null, false]),
  load_in_8bit: refused("quantised weights are not supported yet"),
  load_in_4bit: refused("quantised weights are not supported yet"),
  bnb_4bit_quant_type: noEffect("quantised weights are off"),
  use_bnb_nested_quant: noEffect("quantised weights are off", [null, false]),
  use_peft: refused(noLora),
  lora_r: noEffect(noLora),
  lora_alpha: noEffect(noLora),
  lora_dropout: noEffect(noLora),
  lora_target_modules: noEffect(noLora),
  lora_modules_to_save: noEffect(noLora),

  // Data
  dataset_num_proc: noEffect(ownWorkers),
  dataloader_num_workers: noEffect(ownWorkers),
  dataloader_pin_memory: noEffect(ownWorkers),
  dataloader_drop_last: refused("the last step of an epoch holds what remains"),
  remove_unused_columns: noEffect("other columns are never read"),
  max_completion_length: noEffect("only encoder-decoder models have it"),
  max_target_length: noEffect("only encoder-decoder models have it"),
  label_pad_token_id: noEffect("batches are packed, never padded"),
  padding_value: noEffect("batches are packed, never padded"),
  padding_free: noEffect("batches are packed, never padded"),
  group_by_length: refused("it changes the order of the examples"),
  disable_dropout: noEffect("there is no dropout", [null, true]),

  // Training
  do_train: noEffect("train trains", [null, true]),
  do_predict: noEffect("use the score and generate commands", [null, false]),
  lr_scheduler_kwargs: refused("the schedules here take no arguments", [null]),
  neftune_noise_alpha: refused("noise on embeddings is not supported"),
  label_smoothing_factor: refused("label smoothing is not supported"),
  auto_find_batch_size: noEffect("the memory plan decides the micro-batches", [null, false]),
  generate_during_eval: refused("use the generate command on a checkpoint"),
  load_best_model_at_end: refused("the last weights are the result"),
  data_seed: refused("seed decides the data order", [null]),
  full_determinism: noEffect("runs are deterministic anyway"),
  average_tokens_across_devices: noEffect("a step is a mean over its examples"),
  ddp_timeout: noEffect(trainer),
  use_cpu: noEffect("--device decides", [null, false]),
  no_cuda: noEffect("--device decides", [null, false]),
  deepspeed: noEffect(trainer),
  fsdp: noEffect(trainer, [null, "", false]),
  fsdp_config: noEffect(trainer),

  // Logs and uploads
  report_to: noEffect("metrics are written to metrics.jsonl", [null, "none"]),
  log_level: noEffect(ownLogs),
  logging_strategy: noEffect(ownLogs, [null, "steps"]),
  logging_first_step: noEffect(ownLogs, [null, false]),
  logging_dir: noEffect(ownLogs),
  disable_tqdm: noEffect(ownLogs),
  include_tokens_per_second: noEffect(ownLogs),
  overwrite_output_dir: noEffect("files of an earlier run are replaced"),
  save_only_model: refused("checkpoints hold all that a resumed run needs"),
  save_safetensors: noEffect("weights are always saved as safetensors", [null, true]),
  push_to_hub: refused("uploads are not supported; push output_dir yourself"),
  hub_model_id: noEffect(noHub),
  hub_model_revision: noEffect(noHub),
  hub_strategy: noEffect(noHub),
  hub_private_repo: noEffect(noHub),
  hub_token: noEffect(noHub),
};

/** True when a value asks for nothing: an idle value, or a list of such values. */
export function isIdle(key: ForeignKey, value: unknown): boolean {
  if (Array.isArray(value)) return value.every((item) => key.idle.includes(item));
  return key.idle.includes(value);
}
