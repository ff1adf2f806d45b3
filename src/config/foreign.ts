import type { Config } from "./schema.js";

/**
 * Keys that recipes written for transformers, TRL and alignment-handbook carry and that this project does
 * not act on. Where leaving a key aside changes no number it is accepted and named in a notice; where it
 * would, the recipe is refused. Never silently ignored.
 */
export interface ForeignKey {
  /** Why the key changes nothing here, or what asking for it would need. */
  readonly reason: string;
  /** Values that ask for nothing, so that there is nothing to say. */
  readonly idle: readonly unknown[];
  /** Whether values that are not idle make the recipe unusable; a function: some of them. */
  readonly refused: boolean | ((value: unknown, config: Config | undefined) => boolean);
}

const OFF = [false, null, "no", "none", 0, ""] as const;
const UNSET = [null, false] as const;

/** Accepted; any value that is not idle is named in the notice. */
function noEffect(reason: string, idle: readonly unknown[] = [null]): ForeignKey {
  return { reason, idle, refused: false };
}

/** Accepted with the idle values only. */
function refused(reason: string, idle: readonly unknown[] = OFF): ForeignKey {
  return { reason, idle, refused: true };
}

/** Named in the notice, unless a value would change the numbers. */
function unless(harmful: Exclude<ForeignKey["refused"], boolean>, reason: string): ForeignKey {
  return { reason, idle: [null], refused: harmful };
}

/** True for a map that sets other keys than these, or for anything but a map. */
function othersThan(...known: string[]): (value: unknown) => boolean {
  return (value) =>
    typeof value !== "object" ||
    Array.isArray(value) ||
    Object.keys(value ?? {}).some((key) => !known.includes(key));
}

/** True for a map in which one of these keys is set to something other than null or false. */
function anyOf(...keys: string[]): (value: unknown) => boolean {
  return (value) =>
    typeof value !== "object" ||
    keys.some((key) => (value as Readonly<Record<string, unknown>> | null)?.[key] || false);
}

const loadingOnly = [
  "attn_implementation",
  "device_map",
  "dtype",
  "low_cpu_mem_usage",
  "revision",
  "torch_dtype",
  "trust_remote_code",
  "use_cache",
];
const ownKernels = "attention and memory layout are this package's own";
const noHub = "nothing is uploaded";
const noLora = "adapters are not supported; all weights are trained";
const noQuantisation = "quantised weights are not supported";
const ownLogs = "progress goes to stderr, every step to metrics.jsonl";
const ownWorkers = "rows are prepared in one process";
const trainer = "it steers the Python trainer only";
const noCompiler = "the kernels are compiled with the package";
const noReference = "losses with a reference model, DPO's among them, are not supported";
const notDpo = "it belongs to a variant of DPO, which is not supported";
const packed = "batches are packed, never padded";
const evaluation = "an evaluation keeps nothing but its metrics";
const devicesHere = "--device decides";
const wholePrompt = "next-token training scores every token of a row";
const chunks = "rows are not joined into chunks, so a step would have other examples";

export const foreignKeys: Readonly<Record<string, ForeignKey>> = {
  // Model
  attn_implementation: noEffect(ownKernels),
  use_flash_attention_2: noEffect(ownKernels, UNSET),
  use_liger_kernel: noEffect(ownKernels, UNSET),
  liger_kernel_config: noEffect(ownKernels),
  use_liger_loss: noEffect(ownKernels),
  use_cache: noEffect(ownKernels, UNSET),
  activation_offloading: noEffect(ownKernels, UNSET),
  gradient_checkpointing_kwargs: noEffect("there is one way to recompute a block"),
  gradient_checkpointing_use_reentrant: noEffect("there is one way to recompute a block"),
  torch_compile: noEffect(noCompiler, UNSET),
  torch_compile_backend: noEffect(noCompiler),
  torch_compile_mode: noEffect(noCompiler),
  torchdynamo: noEffect(noCompiler),
  jit_mode_eval: noEffect(noCompiler, UNSET),
  use_ipex: noEffect(noCompiler, UNSET),
  torch_empty_cache_steps: noEffect("memory is planned before the run"),
  trust_remote_code: noEffect("code from a model repository is never run", UNSET),
  model_revision: noEffect("a local model directory has no revisions", [null, "main"]),
  model_code_revision: noEffect("code from a model repository is never run"),
  base_model_revision: noEffect(noLora),
  model_init_kwargs: unless(
    othersThan(...loadingOnly),
    "the model is read as its config.json says; only keys without effect may stand here",
  ),
  is_encoder_decoder: refused("only decoders are supported"),
  router_aux_loss_coef: noEffect("only mixtures of experts have it"),
  fp16: refused("half precision is not supported; use bf16: true"),
  fp16_full_eval: refused("half precision is not supported; use bf16: true"),
  fp16_backend: noEffect("half precision is off"),
  fp16_opt_level: noEffect("half precision is off"),
  half_precision_backend: noEffect("half precision is off"),
  bf16_full_eval: {
    reason: "an evaluation runs in the dtype of the training; use bf16: true",
    idle: UNSET,
    refused: (_, config) => config?.bf16 === false,
  },
  tf32: noEffect("f32 arithmetic stays f32", UNSET),
  load_in_8bit: refused(noQuantisation),
  load_in_4bit: refused(noQuantisation),
  bnb_4bit_quant_type: noEffect("quantised weights are off"),
  bnb_4bit_quant_storage: noEffect("quantised weights are off"),
  bnb_4bit_compute_dtype: noEffect("quantised weights are off"),
  use_bnb_nested_quant: noEffect("quantised weights are off", UNSET),
  use_peft: refused(noLora),
  lora_r: noEffect(noLora),
  lora_alpha: noEffect(noLora),
  lora_dropout: noEffect(noLora),
  lora_target_modules: noEffect(noLora),
  lora_target_parameters: noEffect(noLora),
  lora_modules_to_save: noEffect(noLora),
  lora_task_type: noEffect(noLora),
  use_rslora: noEffect(noLora, UNSET),
  use_dora: noEffect(noLora, UNSET),
  model_adapter_name: refused(noLora),
  ref_adapter_name: refused(noLora),

  // Data
  dataset_mixture: noEffect("dataset_mixer names the data"),
  dataset_num_proc: noEffect(ownWorkers),
  dataset_batch_size: noEffect(ownWorkers),
  ignore_bias_buffers: noEffect(trainer, UNSET),
  dataset_streaming: noEffect("files are read row by row anyway", UNSET),
  streaming: noEffect("files are read row by row anyway", UNSET),
  shuffle_dataset: noEffect("shuffle decides", UNSET),
  dataloader_num_workers: noEffect(ownWorkers, [null, 0]),
  dataloader_pin_memory: noEffect(ownWorkers, [null, true]),
  dataloader_persistent_workers: noEffect(ownWorkers, UNSET),
  dataloader_prefetch_factor: noEffect(ownWorkers),
  dataloader_multiprocessing_context: noEffect(ownWorkers),
  dataloader_in_order: noEffect(ownWorkers, [null, true]),
  dataloader_drop_last: refused("the last step of an epoch holds what remains"),
  remove_unused_columns: noEffect("other columns are never read", [null, true]),
  label_names: noEffect("other columns are never read"),
  max_completion_length: noEffect("only encoder-decoder models have it"),
  max_target_length: noEffect("only encoder-decoder models have it"),
  label_pad_token_id: noEffect(packed),
  padding_value: noEffect(packed),
  padding_free: noEffect(packed, UNSET),
  pad_to_multiple_of: noEffect(packed),
  pad_token: noEffect(packed),
  eos_token: refused("the model's tokenizer_config.json names the end-of-sequence token"),
  chat_template_path: refused("give the template itself as chat_template"),
  dataset_kwargs: unless(
    anyOf("skip_prepare_dataset", "add_special_tokens", "append_concat_token"),
    "templates place the special tokens, and rows that hold ids are taken as they are",
  ),
  packing: refused(chunks),
  eval_packing: refused(chunks),
  packing_strategy: noEffect("packing is off"),
  num_of_sequences: noEffect("packing is off"),
  chars_per_token: noEffect("packing is off"),
  assistant_only_loss: refused(wholePrompt),
  completion_only_loss: refused(wholePrompt),
  group_by_length: refused("it changes the order of the examples"),
  train_sampling_strategy: refused(
    "the order is random, or with shuffle: false that of the files",
    [null, "random"],
  ),
  length_column_name: noEffect("examples are not grouped by length", [null, "length"]),
  disable_dropout: noEffect("there is no dropout", [null, true]),
  tools: refused("templates are not given tools"),

  // Losses of other trainers
  ref_model: refused(noReference),
  ref_model_init_kwargs: refused(noReference),
  reference_free: noEffect("no loss here has a reference model", [null, true]),
  force_use_ref_model: refused(noReference),
  precompute_ref_log_probs: refused(noReference),
  precompute_ref_batch_size: noEffect("no loss here has a reference model"),
  sync_ref_model: refused(noReference),
  ref_model_mixup_alpha: noEffect("no loss here has a reference model"),
  ref_model_sync_steps: noEffect("no loss here has a reference model"),
  f_divergence_type: refused(notDpo, [null, "reverse_kl"]),
  f_alpha_divergence_coef: noEffect("no loss here has a reference model"),
  rpo_alpha: refused("sft_weight adds a cross-entropy on the chosen responses to a loss"),
  loss_weights: refused("losses are not mixed; sft_weight adds a cross-entropy to one"),
  ld_alpha: refused(notDpo),
  use_weighting: refused(notDpo),
  use_logits_to_keep: noEffect("logits of tokens that are not scored are never computed"),
  discopop_tau: noEffect("only the discopop loss has it"),
  simpo_gamma: refused("write it as gamma_beta_ratio: simpo_gamma / beta", [null]),
  cpo_alpha: refused("sft_weight adds a cross-entropy on the chosen responses to a loss"),
  desirable_weight: refused("it belongs to KTO, which is not supported", [null]),
  undesirable_weight: refused("it belongs to KTO, which is not supported", [null]),

  // Training
  do_train: noEffect("train trains", [null, true, false]),
  do_predict: noEffect("use the score and generate commands", UNSET),
  optim_args: refused("AdamW has its own keys: adam_beta1, adam_beta2, adam_epsilon"),
  optim_target_modules: refused("one optimizer trains all weights"),
  adafactor: refused("the optimizer is AdamW"),
  neftune_noise_alpha: refused("noise on embeddings is not supported"),
  label_smoothing_factor: refused("it smooths a cross-entropy; label_smoothing is sigmoid's"),
  auto_find_batch_size: noEffect("the memory plan decides the micro-batches", UNSET),
  data_seed: refused("seed decides the data order", [null]),
  ignore_data_skip: refused("a resumed run goes on where it stopped in the data"),
  restore_callback_states_from_checkpoint: noEffect(trainer, UNSET),
  full_determinism: noEffect("runs are deterministic anyway", UNSET),
  average_tokens_across_devices: noEffect(
    "a step is one mean, wherever its examples are computed",
    [null, true],
  ),
  past_index: refused("models with a state beside their keys are not supported", [null, -1]),
  accelerator_config: unless(
    anyOf("split_batches", "gradient_accumulation_kwargs"),
    "batches are not split: per_device_train_batch_size is for each process",
  ),
  split_batches: refused("per_device_train_batch_size is for each process"),
  dispatch_batches: noEffect(ownWorkers),
  parallelism_config: noEffect(trainer),
  ddp_backend: noEffect("NCCL connects GPUs, MPI connects processes on CPUs"),
  ddp_broadcast_buffers: noEffect(trainer),
  ddp_bucket_cap_mb: noEffect(trainer),
  ddp_find_unused_parameters: noEffect(trainer),
  ddp_static_graph: noEffect(trainer),
  local_rank: noEffect(trainer, [null, -1]),
  mp_parameters: noEffect(trainer, [null, ""]),
  ray_scope: noEffect(trainer),
  sharded_ddp: noEffect(trainer, OFF),
  use_cpu: noEffect(devicesHere, UNSET),
  no_cuda: noEffect(devicesHere, UNSET),
  use_mps_device: noEffect(devicesHere, UNSET),
  xpu_backend: noEffect(devicesHere),
  tpu_num_cores: noEffect(devicesHere),
  tpu_metrics_debug: noEffect(devicesHere, UNSET),
  deepspeed: refused(
    "a DeepSpeed file may name another optimizer, schedule or clipping; write those as recipe keys",
  ),
  fsdp: noEffect("zero_stage says what the processes share", OFF),
  fsdp_config: noEffect("zero_stage says what the processes share"),
  fsdp_min_num_params: noEffect(trainer, [null, 0]),
  fsdp_transformer_layer_cls_to_wrap: noEffect(trainer),

  // Evaluation
  prediction_loss_only: noEffect(evaluation, UNSET),
  eval_accumulation_steps: noEffect(evaluation),
  eval_do_concat_batches: noEffect(evaluation, [null, true]),
  eval_use_gather_object: noEffect(evaluation, UNSET),
  batch_eval_metrics: noEffect(evaluation, UNSET),
  include_for_metrics: noEffect(evaluation, OFF),
  include_inputs_for_metrics: noEffect(evaluation, UNSET),

  // Logs, checkpoints and uploads
  log_level: noEffect(ownLogs, [null, "passive"]),
  log_level_replica: noEffect(ownLogs, [null, "passive", "warning"]),
  log_on_each_node: noEffect(ownLogs, [null, true]),
  logging_strategy: noEffect(ownLogs, [null, "steps"]),
  logging_first_step: noEffect(ownLogs, UNSET),
  logging_nan_inf_filter: noEffect(ownLogs, [null, true]),
  disable_tqdm: noEffect(ownLogs, UNSET),
  debug: noEffect(ownLogs, OFF),
  skip_memory_metrics: noEffect(ownLogs, [null, true]),
  include_tokens_per_second: noEffect(ownLogs, UNSET),
  include_num_input_tokens_seen: noEffect(ownLogs, OFF),
  trackio_space_id: noEffect("trackio is not supported"),
  trackio_bucket_id: noEffect("trackio is not supported"),
  trackio_static_space_id: noEffect("trackio is not supported"),
  overwrite_output_dir: noEffect("files of an earlier run are replaced", [null, true]),
  save_only_model: noEffect("checkpoints hold all that a resumed run needs", UNSET),
  save_on_each_node: noEffect("one process writes", UNSET),
  save_safetensors: noEffect("weights are always saved as safetensors", [null, true]),
  enable_jit_checkpoint: noEffect("an interrupted run always saves a checkpoint", UNSET),
  push_to_hub: noEffect("nothing is uploaded; push output_dir yourself", UNSET),
  push_to_hub_model_id: noEffect(noHub),
  push_to_hub_organization: noEffect(noHub),
  push_to_hub_token: noEffect(noHub),
  hub_always_push: noEffect(noHub, UNSET),
  hub_model_id: noEffect(noHub),
  hub_model_revision: noEffect(noHub),
  hub_revision: noEffect(noHub),
  hub_strategy: noEffect(noHub, [null, "every_save"]),
  hub_private_repo: noEffect(noHub, UNSET),
  hub_token: noEffect(noHub),
};

/** True when a value asks for nothing: an idle value, or a list of such values. */
export function isIdle(key: ForeignKey, value: unknown): boolean {
  if (Array.isArray(value)) return value.every((item) => isIdle(key, item));
  return key.idle.includes(value);
}

/** Whether a value that is not idle makes the recipe unusable. */
export function isRefused(key: ForeignKey, value: unknown, config: Config | undefined): boolean {
  return typeof key.refused === "function" ? key.refused(value, config) : key.refused;
}
