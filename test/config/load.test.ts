import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { defineConfig, loadRecipe } from "#src/config/load.js";
import { ConfigError } from "#src/errors.js";
import { wholeSteps } from "#src/train/milestones.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-config-"));
after(() => rmSync(dir, { recursive: true }));

const minimal = `model_name_or_path: models/tiny
dataset_mixer:
  rows.jsonl: 1.0
`;
// The two lengths have defaults that are worth a notice.
const lengths = "max_length: 256\nmax_prompt_length: 128\n";

function write(text: string, name = "my-run.yaml"): string {
  const file = path.join(dir, name);
  writeFileSync(file, text);
  return file;
}

/** The message of the error a recipe raises, with the temporary folder left out. */
function refusal(text: string, words: string[] = [], flags: string[] = []): string {
  try {
    loadRecipe(write(text), words, { flags });
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.exitCode, 2);
    return error.message.replaceAll(`${dir}/`, "");
  }
  assert.fail(`the recipe was accepted:\n${text}`);
}

test("a minimal recipe gets Hugging Face's defaults", () => {
  const { config, notices, baseDir } = loadRecipe(write(minimal));
  assert.equal(config.modelNameOrPath, "models/tiny");
  assert.deepEqual(config.datasetMixer, { "rows.jsonl": 1 });
  assert.equal(config.learningRate, 5e-5);
  assert.equal(config.lrSchedulerType, "linear");
  assert.equal(config.numTrainEpochs, 3);
  assert.equal(config.maxSteps, -1);
  assert.equal(config.perDeviceTrainBatchSize, 8);
  assert.equal(config.gradientAccumulationSteps, 1);
  assert.equal(config.maxGradNorm, 1);
  assert.equal(config.adamBeta2, 0.999);
  assert.equal(config.lossType, "SimPER");
  assert.equal(config.bf16, false);
  assert.equal(config.saveDtype, "float32");
  assert.equal(config.doEval, false);
  assert.equal(config.evalStrategy, "no");
  assert.equal(config.saveStrategy, "steps");
  assert.equal(config.resumeFromCheckpoint, false);
  assert.deepEqual([config.maxLength, config.maxPromptLength], [512, 128]);
  assert.deepEqual(notices, [
    "not in the recipe, so the default is used: max_length: 512, max_prompt_length: 128",
  ]);
  assert.equal(baseDir, dir);
  assert.deepEqual(loadRecipe(write(minimal + lengths)).notices, []);
});

test("max_length that is not given makes room for prompts as long as the default allows in all", () => {
  const { config, notices } = loadRecipe(write(`${minimal}max_prompt_length: 512\n`));
  assert.deepEqual([config.maxLength, config.maxPromptLength], [1024, 512]);
  assert.deepEqual(notices, [
    "max_length is not in the recipe and is 1024, twice max_prompt_length: the default, 512, would leave no room for a response",
  ]);
  const lengthOf = (lines: string) => loadRecipe(write(`${minimal}${lines}\n`)).config.maxLength;
  assert.equal(lengthOf("max_prompt_length: 1800\nmax_length: null"), 3600);
  assert.equal(lengthOf("max_prompt_length: 511"), 512);
  // Where prompts are not cut to it, it says nothing about the whole.
  assert.equal(lengthOf("max_prompt_length: 512\ndata_semantics: corrected"), 512);
  assert.equal(lengthOf("max_prompt_length: 512\nloss_type: sft"), 512);
  assert.match(
    refusal(`${minimal}max_prompt_length: 512\nmax_length: 512\n`),
    /max_prompt_length: expected less than max_length \(512\), received 512: a pair cut to that/,
  );
});

test("the config is frozen through and through", () => {
  const { config } = loadRecipe(write(minimal));
  assert.ok(Object.isFrozen(config));
  assert.ok(Object.isFrozen(config.datasetMixer));
});

test("numbers in scientific notation are numbers", () => {
  for (const [text, value] of [
    ["1e-6", 1e-6],
    ["6.0e-7", 6e-7],
    ["1E-3", 1e-3],
    [".5", 0.5],
  ] as const) {
    assert.equal(
      loadRecipe(write(`${minimal}learning_rate: ${text}\n`)).config.learningRate,
      value,
    );
    assert.equal(loadRecipe(write(minimal), ["--learning_rate", text]).config.learningRate, value);
  }
});

test("evaluation follows from what the recipe gives", () => {
  const cases: [string, boolean, string, number][] = [
    ["do_eval: true", true, "no", 500],
    ["do_eval: true\neval_steps: 4", true, "steps", 4],
    ["eval_steps: 4", true, "steps", 4],
    ["eval_strategy: epoch", true, "epoch", 500],
    ["evaluation_strategy: steps\nlogging_steps: 5", true, "steps", 5],
    ["evaluation_strategy: steps\ndo_eval: false", true, "steps", 500],
    ["eval_strategy: epoch\ndo_eval: false", true, "epoch", 500],
    ["eval_strategy: no\ndo_eval: false", false, "no", 500],
    ["eval_steps: 4\ndo_eval: false", false, "no", 4],
    ["eval_on_start: true\ndo_eval: false", false, "no", 500],
    ["eval_on_start: true", true, "no", 500],
  ];
  for (const [lines, doEval, strategy, steps] of cases) {
    const { config } = loadRecipe(write(`${minimal}${lines}\n`));
    assert.deepEqual(
      [config.doEval, config.evalStrategy, config.evalSteps],
      [doEval, strategy, steps],
      lines,
    );
  }
  const off = loadRecipe(write(`${minimal}${lengths}eval_strategy: epoch\n`), [
    "--do_eval",
    "false",
  ]);
  assert.deepEqual(off.notices, [
    "accepted, no effect: do_eval (eval_strategy is epoch and wins, as in transformers)",
  ]);
});

test("save_dtype follows bf16 unless it is given", () => {
  const dtype = (lines: string) => loadRecipe(write(minimal + lines)).config.saveDtype;
  assert.equal(dtype("bf16: true\n"), "bfloat16");
  assert.equal(dtype("bf16: true\nsave_dtype: float32\n"), "float32");
});

test("overrides replace the file's values and are read as YAML", () => {
  const words = [
    "--learning_rate=1e-6",
    "--bf16",
    "false",
    "--dataset_mixer",
    '{"d.jsonl": 1.0}',
  ].concat([
    "--dataset_splits",
    "[train, test]",
    "--max-steps",
    "-1",
    "--run_name",
    "7",
    "--do_eval",
  ]);
  const { config } = loadRecipe(write(`${minimal}bf16: true\nlearning_rate: 1.0\n`), words);
  assert.equal(config.learningRate, 1e-6);
  assert.equal(config.bf16, false);
  assert.deepEqual(config.datasetMixer, { "d.jsonl": 1 });
  assert.deepEqual(config.datasetSplits, ["train", "test"]);
  assert.equal(config.maxSteps, -1);
  assert.equal(config.runName, "7");
  assert.equal(config.doEval, true);
});

test("a dotted override sets one entry of a map", () => {
  const { config } = loadRecipe(write(minimal), ["--dataset_mixer.more.jsonl", "0.5"]);
  assert.deepEqual(config.datasetMixer, { "rows.jsonl": 1, "more.jsonl": 0.5 });
  assert.match(
    refusal(minimal, ["--seed.x", "1"]),
    /^--seed\.x: seed is not a map, so it has no entry "x"$/,
  );
  assert.match(
    refusal(minimal, ["--dataset_mixer.more.jsonl", "much"]),
    /^--dataset_mixer\.more\.jsonl: expected a number.*received "much"$/,
  );
});

test("the later of two overrides wins, under either name of the key", () => {
  const { config } = loadRecipe(write(minimal), ["--seed", "1", "--seed", "2"]);
  assert.equal(config.seed, 2);
  const { config: other } = loadRecipe(write(`${minimal}evaluation_strategy: steps\n`), [
    "--eval_strategy",
    "epoch",
  ]);
  assert.equal(other.evalStrategy, "epoch");
});

test("merge keys take over values and keep their places", () => {
  const text = `model_name_or_path: m
dataset_mixer: &mix
  rows.jsonl: 1.0
dataset_configs_of_another_tool: 1
`;
  assert.match(refusal(text), /^my-run\.yaml:4:1 {2}dataset_configs_of_another_tool: unknown key/);
  const merged = `model_name_or_path: m
<<: {learning_rate: banana}
dataset_mixer:
  rows.jsonl: 1.0
`;
  assert.equal(
    refusal(merged),
    'my-run.yaml:2:21  learning_rate: expected a number, received "banana"',
  );
});

test("an unknown key is refused with its place and the nearest name", () => {
  assert.equal(
    refusal(`${minimal}\nlearning_rte: 1e-6\n`),
    'my-run.yaml:5:1  learning_rte: unknown key (did you mean "learning_rate"?)',
  );
  assert.equal(refusal(`  \n${minimal}zzzzqq: 1\n`), "my-run.yaml:5:1  zzzzqq: unknown key");
  // Code's spelling is not the recipe's.
  assert.equal(
    refusal(`${minimal}learningRate: 1\n`),
    'my-run.yaml:4:1  learningRate: unknown key (did you mean "learning_rate"?)',
  );
});

test("an unknown override is refused with the nearest key or option", () => {
  assert.equal(
    refusal(minimal, ["--learning_rte", "1"]),
    '--learning_rte: unknown key (did you mean "learning_rate"?)',
  );
  assert.equal(
    refusal(minimal, ["--devise", "cpu"], ["--device"]),
    '--devise: unknown key (did you mean "--device"?)',
  );
  assert.equal(
    refusal(minimal, ["cpu"]),
    "cpu: unexpected argument; overrides are written --key value",
  );
  assert.equal(refusal(minimal, ["--learning_rate", "--bf16"]), "--learning_rate: expects a value");
});

test("a value that does not fit is refused with its place, what was expected and what came", () => {
  const cases: [string, string][] = [
    ["learning_rate: banana", '4:16  learning_rate: expected a number, received "banana"'],
    ["learning_rate:", "4:1  learning_rate: expected a number, received null (nothing)"],
    ["learning_rate: -1", "4:16  learning_rate: expected a number at least 0, received -1"],
    ["warmup_ratio: 3", "4:15  warmup_ratio: expected a number at most 1, received 3"],
    ["bf16: maybe", '4:7  bf16: expected true or false, received "maybe"'],
    ["seed: 1.5", "4:7  seed: expected a whole number, received 1.5"],
    ["max_steps: 0", "4:12  max_steps: expected -1 or a whole number above 0, received 0"],
    [
      "per_device_train_batch_size: 0",
      "4:30  per_device_train_batch_size: expected a number above 0, received 0",
    ],
    [
      "resume_from_checkpoint: 3",
      "4:25  resume_from_checkpoint: expected true or false or text, received 3",
    ],
    ["output_dir: ''", '4:13  output_dir: expected text that is not empty, received ""'],
    [
      "save_strategy: step",
      '4:16  save_strategy: expected one of "no", "steps", "epoch", received "step" (did you mean "steps"?)',
    ],
    [
      "loss_type: kto",
      '4:12  loss_type: "kto" is not supported yet; use "SimPER", "sigmoid", "hinge", "sft"',
    ],
    [
      "loss_type: simper",
      '4:12  loss_type: expected one of "SimPER", "sigmoid", "hinge", "sft", received "simper" (did you mean "SimPER"?)',
    ],
    [
      "optim: adafactor",
      '4:8  optim: "adafactor" is not supported yet; use "adamw_torch", "adamw_torch_fused", ' +
        '"adamw_torch_xla", "adamw_torch_npu_fused"',
    ],
    ["dataset_splits: [train, 3]", "4:25  dataset_splits[1]: expected text, received 3"],
  ];
  for (const [line, message] of cases) {
    assert.equal(refusal(`${minimal}${line}\n`), `my-run.yaml:${message}`);
  }
});

test("what is missing is named", () => {
  const message = refusal("dataset_mixer:\n  a.jsonl: 1.0\n");
  assert.equal(message, "my-run.yaml: model_name_or_path: this key is required: expected text");
});

test("every problem is reported at once, in the order of the file", () => {
  const message = refusal(`${minimal}seed: x\nlearning_rte: 1\nuse_peft: true\n`, [
    "--bf16",
    "maybe",
  ]);
  assert.deepEqual(message.split("\n"), [
    "4 problems",
    '  my-run.yaml:4:7  seed: expected a number, received "x"',
    '  my-run.yaml:5:1  learning_rte: unknown key (did you mean "learning_rate"?)',
    "  my-run.yaml:6:11  use_peft: true cannot be honoured: adapters are not supported; all weights are trained",
    '  --bf16: expected true or false, received "maybe"',
  ]);
});

test("rules between keys", () => {
  const cases: [string, RegExp][] = [
    [
      "max_length: 100\nmax_prompt_length: 100",
      /^my-run\.yaml:5:20 {2}max_prompt_length: expected less than max_length \(100\), received 100/,
    ],
    [
      "do_eval: true\ndataset_splits: [train]",
      /^my-run\.yaml:5:17 {2}dataset_splits: evaluation needs a split whose name contains "test", received \[train\]; add one or set do_eval: false$/,
    ],
    [
      "do_eval: false\neval_strategy: steps\ndataset_splits: [train]",
      /^my-run\.yaml:6:17 {2}dataset_splits: evaluation needs .* add one or set do_eval: false and eval_strategy: "no"$/,
    ],
    [
      "dataset_splits: [test]",
      /^my-run\.yaml:4:17 {2}dataset_splits: training needs a split whose name contains "train"/,
    ],
    [
      "loss_type: sft\nsft_weight: 0.5",
      /^my-run\.yaml:5:13 {2}sft_weight: an SFT term is added to a loss on pairs, and loss_type sft has none, received 0\.5; leave it out, or set loss_type to SimPER, sigmoid or hinge$/,
    ],
    [
      "loss_type: hinge\nbeta: 0",
      /^my-run\.yaml:5:7 {2}beta: expected more than 0 with loss_type hinge, received 0: every pair would have the same loss and no gradient$/,
    ],
  ];
  for (const [lines, message] of cases) assert.match(refusal(`${minimal}${lines}\n`), message);
});

test("a file that is no recipe is refused with a reason", () => {
  const cases: [string, string][] = [
    ["", "my-run.yaml: the recipe is empty; expected lines of the form `key: value`"],
    ["# nothing\n\n", "my-run.yaml: the recipe is empty; expected lines of the form `key: value`"],
    ["- a\n", "my-run.yaml:1:1  expected a map of keys (`key: value` lines), received a list"],
    [
      "just text\n",
      'my-run.yaml:1:1  expected a map of keys (`key: value` lines), received "just text"',
    ],
    ["seed: 1\nseed: 2\n", "my-run.yaml:2:1  not valid YAML: duplicated mapping key"],
    ["seed: [1\n", "my-run.yaml:2:1  not valid YAML: "],
  ];
  for (const [text, message] of cases) assert.ok(refusal(text).startsWith(message), refusal(text));
});

test("the two names of one key clash inside a file", () => {
  assert.match(
    refusal(`${minimal}evaluation_strategy: steps\neval_strategy: epoch\n`),
    /^my-run\.yaml:5:1 {2}eval_strategy: the same key as my-run\.yaml:4:1 {2}evaluation_strategy; keep one of them$/,
  );
});

test("a recipe that cannot be read is refused with a reason", () => {
  assert.throws(() => loadRecipe("no/such.yaml"), {
    code: "ERR_SIMPER_CONFIG",
    message: "no/such.yaml: cannot read the recipe: there is no such file",
  });
  assert.throws(() => loadRecipe(dir), {
    message: `${dir}: cannot read the recipe: it is a folder`,
  });
});

test("keys that change nothing are accepted and named in one notice", () => {
  const { notices } = loadRecipe(
    write(
      `${minimal}${lengths}loss_type: SimPER\nbeta: 2.0\ngamma_beta_ratio: 0.5\nattn_implementation: sdpa\nuse_peft: "no"\ntorch_dtype: null\npush_to_hub: false\n`,
    ),
    ["--hub_model_id", "x"],
  );
  assert.equal(notices.length, 1);
  assert.match(notices[0]!, /^accepted, no effect: /);
  assert.match(notices[0]!, /beta, gamma_beta_ratio \(SimPER does not use it\)/);
  assert.match(notices[0]!, /attn_implementation \(/);
  assert.match(notices[0]!, /hub_model_id \(nothing is uploaded\)/);
  assert.doesNotMatch(notices[0]!, /use_peft|torch_dtype|push_to_hub/);
});

test("options that a loss does not read are named, and those that it reads are not", () => {
  const options = "beta: 2.5\ngamma_beta_ratio: 0.3\nlabel_smoothing: 0.1\nsft_weight: 0.2\n";
  const notices = (lossType: string) =>
    loadRecipe(write(`${minimal}${lengths}loss_type: ${lossType}\n${options}`)).notices;
  assert.deepEqual(notices("SimPER"), [
    "accepted, no effect: beta, gamma_beta_ratio, label_smoothing (SimPER does not use it)",
  ]);
  assert.deepEqual(notices("sigmoid"), []);
  assert.deepEqual(notices("hinge"), [
    "accepted, no effect: label_smoothing (hinge does not use it)",
  ]);
});

test("warmup_steps wins over warmup_ratio and says so", () => {
  const { config, notices } = loadRecipe(
    write(`${minimal}${lengths}warmup_steps: 3\nwarmup_ratio: 0.1\n`),
  );
  assert.equal(config.warmupSteps, 3);
  assert.match(notices[0]!, /warmup_ratio \(warmup_steps is 3 and wins\)/);
});

test("a key that would change the numbers and is not supported is refused", () => {
  for (const line of [
    "load_in_4bit: true",
    "use_peft: true",
    'use_peft: "yes"',
    "fp16: true",
    "precompute_ref_log_probs: true",
    "optim_args: betas=0.8",
    "packing: true",
    "assistant_only_loss: true",
    "bf16_full_eval: true",
    "model_init_kwargs: {rope_scaling: {factor: 2}}",
    "dataset_kwargs: {add_special_tokens: true}",
    "accelerator_config: {split_batches: true}",
    "train_sampling_strategy: sequential",
    "deepspeed: ds.json",
  ]) {
    assert.match(
      refusal(`${minimal}${line}\n`),
      /^my-run\.yaml:4:\d+ .* cannot be honoured: /,
      line,
    );
  }
});

test("of keys that may or may not change the numbers, values that do not are named in the notice", () => {
  const lines = [
    "bf16: true",
    "bf16_full_eval: true",
    "model_init_kwargs: {attn_implementation: eager}",
    "dataset_kwargs: {add_special_tokens: false, append_concat_token: false}",
    "accelerator_config: {split_batches: false}",
  ];
  const { notices } = loadRecipe(write(`${minimal}${lengths}${lines.join("\n")}\n`));
  assert.equal(notices.length, 1);
  for (const line of lines.slice(1)) assert.ok(notices[0]!.includes(line.split(":")[0]!), line);
});

test("arguments of a schedule that has none of them, or needs them, are refused", () => {
  const cases: [string, string][] = [
    ["{a: 1}", 'lr_scheduler_kwargs: unknown key "a"'],
    [
      "{min_lr: 0}",
      "lr_scheduler_kwargs: linear has no least rate; use lr_scheduler_type: cosine_with_min_lr",
    ],
    [
      "{num_cycles: 1}",
      "lr_scheduler_kwargs: linear has no num_cycles; cosine and cosine_with_min_lr have",
    ],
    [
      "{min_lr: 1.0}\nlr_scheduler_type: cosine_with_min_lr",
      "lr_scheduler_kwargs: min_lr 1 is above learning_rate 0.00005",
    ],
    [
      "null\nlr_scheduler_type: cosine_with_min_lr",
      "lr_scheduler_kwargs: cosine_with_min_lr needs min_lr or min_lr_rate, received neither",
    ],
    [
      "{min_lr: 0, min_lr_rate: 0}\nlr_scheduler_type: cosine_with_min_lr",
      "lr_scheduler_kwargs: cosine_with_min_lr needs min_lr or min_lr_rate, received both",
    ],
  ];
  for (const [text, message] of cases) {
    const found = refusal(`${minimal}lr_scheduler_kwargs: ${text}\n`);
    assert.equal(found.replace(/^my-run\.yaml:4:\d+ {2}/, ""), message);
  }
  const kwargs = "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr_rate: 0.1}\n";
  const { config } = loadRecipe(write(minimal + kwargs));
  assert.deepEqual(config.lrSchedulerKwargs, { min_lr_rate: 0.1 });
});

test("text is read as what its key expects, in the file and on the command line", () => {
  const lines = [
    'learning_rate: "5e-7"',
    "warmup_ratio: '.1'",
    "bf16: yes",
    "do_eval: 'False'",
    "num_train_epochs: 1_0",
    "dataset_splits: train_prefs,test_prefs",
    "lr_scheduler_type: cosine_with_min_lr",
    `lr_scheduler_kwargs: '{"min_lr_rate": 0.1}'`,
    "save_strategy: no",
    "report_to: none",
    "max_length: '256'",
    "run_name: '7'",
    "loss_type: [sigmoid]",
  ];
  const { config } = loadRecipe(write(`${minimal}${lines.join("\n")}\n`), [
    "--weight_decay=1e-2",
    "--gradient_checkpointing",
    "True",
    "--max_prompt_length",
    "64",
    "--dataset_mixer",
    "a.jsonl,b.jsonl",
  ]);
  assert.equal(config.learningRate, 5e-7);
  assert.equal(config.warmupRatio, 0.1);
  assert.deepEqual([config.bf16, config.doEval], [true, false]);
  assert.equal(config.numTrainEpochs, 10);
  assert.deepEqual(config.datasetSplits, ["train_prefs", "test_prefs"]);
  assert.deepEqual(config.lrSchedulerKwargs, { min_lr_rate: 0.1 });
  assert.equal(config.saveStrategy, "no");
  assert.deepEqual(config.reportTo, "none");
  assert.deepEqual([config.maxLength, config.maxPromptLength], [256, 64]);
  assert.equal(config.runName, "7");
  assert.equal(config.lossType, "sigmoid");
  assert.equal(config.weightDecay, 0.01);
  assert.equal(config.gradientCheckpointing, true);
  assert.deepEqual(config.datasetMixer, { "a.jsonl": 1, "b.jsonl": 1 });
  const fractions = write("model_name_or_path: m\ndataset_mixer:\n  a: '0.5'\n");
  assert.deepEqual(loadRecipe(fractions).config.datasetMixer, { a: 0.5 });
});

test("TRL's keys for the data stand for dataset_mixer and dataset_splits, where these are not given", () => {
  const trl = "model_name_or_path: m\ndataset_name: rows\ndataset_train_split: train_a\n";
  const alone = loadRecipe(write(`${trl}${lengths}dataset_test_split: test_a\n`));
  assert.deepEqual(alone.config.datasetMixer, { rows: 1 });
  assert.deepEqual(alone.config.datasetSplits, ["train_a", "test_a"]);
  assert.deepEqual(alone.notices, []);
  assert.deepEqual(loadRecipe(write(trl)).config.datasetSplits, ["train_a", "test"]);
  const words = ["--dataset_mixer", "{mine: 0.5}", "--dataset_splits", "[train]"];
  const replaced = loadRecipe(write(trl + lengths), words);
  assert.deepEqual(replaced.config.datasetMixer, { mine: 0.5 });
  assert.deepEqual(replaced.config.datasetSplits, ["train"]);
  assert.deepEqual(replaced.notices, [
    "accepted, no effect: dataset_name (dataset_mixer is given); dataset_train_split (dataset_splits is given)",
  ]);
  // An override wins over the file, whichever of the two spellings it has.
  const named = loadRecipe(write(minimal), [
    "--dataset_name",
    "other",
    "--evaluation_strategy",
    "epoch",
  ]);
  assert.deepEqual(named.config.datasetMixer, { other: 1 });
  assert.equal(named.config.evalStrategy, "epoch");
  assert.match(refusal(minimal, ["--dataset_name"]), /^--dataset_name: expects a value$/);
});

test("a configuration belongs to the data set it was named with", () => {
  const trl = "model_name_or_path: m\ndataset_name: rows\ndataset_config: all\n";
  assert.deepEqual(loadRecipe(write(trl)).config.datasetConfigs, ["all"]);
  const { config, notices } = loadRecipe(write(trl + lengths), ["--dataset_mixer", "{mine: 1}"]);
  assert.equal(config.datasetConfigs ?? null, null);
  assert.match(notices[0]!, /dataset_config \(it belongs to dataset_name\)/);
});

test("TRL's names of next-token losses are sft", () => {
  for (const name of ["nll", "chunked_nll"]) {
    assert.equal(loadRecipe(write(`${minimal}loss_type: ${name}\n`)).config.lossType, "sft");
  }
});

test("steps between events may be a share of the run", () => {
  const { config } = loadRecipe(write(`${minimal}save_steps: 0.05\neval_steps: 0.5\n`));
  assert.deepEqual([config.saveSteps, config.evalSteps], [0.05, 0.5]);
  assert.equal(wholeSteps(0.05, 61), 4);
  assert.equal(wholeSteps(0.5, 1), 1);
  assert.equal(wholeSteps(400, 61), 400);
  assert.equal(
    refusal(`${minimal}save_steps: 1.5\n`),
    "my-run.yaml:4:13  save_steps: expected a whole number or a fraction, received 1.5",
  );
});

test("data named as newer recipes of alignment-handbook do have to be named anew", () => {
  const mixture = "model_name_or_path: m\ndataset_mixture:\n  datasets:\n    - id: a/b\n";
  assert.match(
    refusal(mixture),
    /dataset_mixer: this key is required: expected a map; dataset_mixture is not read, so name local files: dataset_mixer: \{path: fraction\}$/,
  );
  const { notices } = loadRecipe(write(mixture + lengths), ["--dataset_mixer", "{mine: 1}"]);
  assert.match(notices[0]!, /dataset_mixture \(dataset_mixer names the data\)/);
});

test("a recipe with keys of next-token training only is read as one, and says so", () => {
  const { config, notices } = loadRecipe(write(`${minimal}max_seq_length: 2048\npacking: false\n`));
  assert.equal(config.lossType, "sft");
  assert.equal(config.maxLength, 2048);
  assert.deepEqual(notices, [
    "loss_type is not given and is sft: only such recipes have max_seq_length",
  ]);
  const given = loadRecipe(
    write(`${minimal}${lengths.replace("max_length", "max_seq_length")}loss_type: SimPER\n`),
  );
  assert.equal(given.config.lossType, "SimPER");
  assert.deepEqual(given.notices, []);
});

test("a recipe with gamma_beta_ratio and no loss_type is for the loss that its run is named after", () => {
  // What the published files of SimPER and SimPO have in common.
  const both = `${minimal}${lengths}beta: 2.0\ngamma_beta_ratio: 0.5\n`;
  const read = (lines: string, words: string[] = []) => {
    const { config, notices } = loadRecipe(write(both + lines), words);
    return [config.lossType, ...notices.map((notice) => notice.replace(/; hub_model_id \(.*/, ""))];
  };
  const hub = (name: string) =>
    `hub_model_id: ${name}-exps\noutput_dir: outputs/m-${name}\nrun_name: m-${name}\n`;
  const unread = "accepted, no effect: beta, gamma_beta_ratio (SimPER does not use it)";
  const uploads = "accepted, no effect: hub_model_id (nothing is uploaded)";
  const simpo = (because: string) =>
    `loss_type is not given and is sigmoid, SimPO's: there is a gamma_beta_ratio, and ${because}`;
  assert.deepEqual(read(hub("simpo")), ["sigmoid", simpo("hub_model_id is simpo-exps"), uploads]);
  assert.equal(read(hub("simper"))[0], "SimPER");
  assert.deepEqual(read("run_name: m-simper\n"), ["SimPER", unread]);
  // A folder that all runs lie in, and what is set for one run, do not change what the file is for.
  const words = ["--output_dir", "/home/me/simper-native/runs"];
  assert.equal(read(hub("simpo"), words)[0], "sigmoid");
  assert.equal(read(hub("simper"), ["--run_name", "against-simpo"])[0], "SimPER");
  const folder = "output_dir: /home/me/simper/m-SimPO\n";
  assert.deepEqual(read(folder), ["sigmoid", simpo("output_dir is m-SimPO")]);
  // A name that says both or neither does not decide; the default stays, said on a line of its own.
  const open =
    "loss_type is not given, so SimPER is trained, which has no beta and no gamma_beta_ratio; SimPO's is loss_type: sigmoid";
  assert.deepEqual(read("run_name: simpo-or-simper\n"), ["SimPER", open]);
  assert.deepEqual(read(""), ["SimPER", open]);
  assert.deepEqual(read("loss_type: SimPER\nrun_name: simpo\n"), ["SimPER", unread]);
  const alone = loadRecipe(write(`${minimal}${lengths}run_name: simpo\n`));
  assert.deepEqual([alone.config.lossType, alone.notices], ["SimPER", []]);
});

test("a DPO recipe that names no loss trains SimPER, said on a line of its own", () => {
  const dpo = loadRecipe(write(`${minimal}${lengths}beta: 0.05\nhub_model_id: zephyr-7b-dpo\n`));
  assert.equal(dpo.config.lossType, "SimPER");
  assert.deepEqual(dpo.notices, [
    "loss_type is not given, so SimPER is trained, which has no beta; DPO, which has one, needs a reference model " +
      "and is not supported",
    "accepted, no effect: hub_model_id (nothing is uploaded)",
  ]);
  const sft = loadRecipe(write(`${minimal}max_seq_length: 128\npacking: false\nbeta: 0.1\n`));
  assert.equal(sft.config.lossType, "sft");
  assert.doesNotMatch(sft.notices.join("\n"), /SimPER|SimPO|DPO/);
});

test("a loss that DPO has under the same name is said to be SimPO's, unless the recipe is", () => {
  for (const lossType of ["sigmoid", "hinge"]) {
    const dpo = loadRecipe(write(`${minimal}${lengths}loss_type: ${lossType}\nbeta: 0.01\n`));
    assert.deepEqual(dpo.notices, [
      `loss_type: ${lossType} is SimPO's loss, with gamma_beta_ratio 0.25 (the default); DPO's of that name needs a ` +
        "reference model and is not supported",
    ]);
  }
  const simpo = write(`${minimal}${lengths}loss_type: sigmoid\nbeta: 2\ngamma_beta_ratio: 0.5\n`);
  assert.deepEqual(loadRecipe(simpo).notices, []);
});

test("a reporter that is not known is refused with the names of those that are", () => {
  const named = 'expected one of "tensorboard", "wandb", "all", "none"';
  assert.equal(
    refusal(`${minimal}report_to: [wandb, mlfow]\n`).replace(/, "azure_ml".*"trackio"/, ""),
    `my-run.yaml:4:20  report_to[1]: ${named}, received "mlfow" (did you mean "mlflow"?)`,
  );
  assert.match(
    refusal(`${minimal}report_to: graphite\n`),
    new RegExp(`report_to: ${named}.*received "graphite"`),
  );
  for (const value of ["all", "wandb", "[tensorboard, wandb]", "[]", "null", "tensorboard,wandb"]) {
    assert.deepEqual(loadRecipe(write(`${minimal}${lengths}report_to: ${value}\n`)).notices, []);
  }
});

test("a reporter of transformers that is not written is named in the notice, not refused", () => {
  const why = "(metrics.jsonl has all metrics; besides it tensorboard and wandb are written)";
  for (const [value, named] of [
    ["mlflow", "report_to: mlflow"],
    ["[wandb, comet_ml, trackio]", "report_to: comet_ml, report_to: trackio"],
  ]) {
    const { notices } = loadRecipe(write(`${minimal}${lengths}report_to: ${value}\n`));
    assert.deepEqual(notices, [`accepted, no effect: ${named} ${why}`]);
  }
  for (const value of [
    ...["azure_ml", "clearml", "codecarbon", "dagshub", "dvclive", "flyte", "kubeflow"],
    ...["neptune", "swanlab"],
  ]) {
    loadRecipe(write(minimal), ["--report_to", value]);
  }
});

test("defineConfig checks a recipe written in code", () => {
  const input = { modelNameOrPath: "m", datasetMixer: { "a.jsonl": 1 } };
  assert.equal(defineConfig({ ...input, learningRate: 1 }).config.learningRate, 1);
  assert.throws(() => defineConfig({ ...input, learningRate: -1 }), {
    message: "config.learningRate: expected a number at least 0, received -1",
  });
});

test("aliases that hold themselves, or stand for more than memory holds, are refused", () => {
  assert.equal(
    refusal(`${minimal}dataset_splits: &a [train, *a]\n`),
    "my-run.yaml: values more than 50 deep, or one that holds itself: expected a recipe",
  );
  const doubling = Array.from({ length: 40 }, (_, n) => `  - &a${n + 1} [*a${n}, *a${n}]`);
  assert.equal(
    refusal(`${minimal}dataset_splits:\n  - &a0 [x, x]\n${doubling.join("\n")}\n`),
    "my-run.yaml: more than 100000 values, aliases written out: expected a recipe",
  );
  assert.match(refusal(minimal, ["--learning_rate", "&a [*a]"]), /--learning_rate/);
});
