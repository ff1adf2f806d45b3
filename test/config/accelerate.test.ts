import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { readAccelerateConfig } from "#src/config/accelerate.js";
import { loadRecipe } from "#src/config/load.js";
import { ConfigError } from "#src/errors.js";
import { fixture } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-accelerate-"));
after(() => rmSync(dir, { recursive: true }));

const recipe = `model_name_or_path: m
dataset_mixer: {rows: 1.0}
max_length: 256
max_prompt_length: 128
per_device_train_batch_size: 2
gradient_accumulation_steps: 16
`;

function write(name: string, text: string): string {
  const file = path.join(dir, name);
  writeFileSync(file, text);
  return file;
}

function load(accelerate: string, more = "", words: string[] = [], processes = 1) {
  const accelerateConfig = write("accelerate.yaml", accelerate);
  return loadRecipe(write("recipe.yaml", recipe + more), words, { accelerateConfig, processes });
}

/** Notices of a recipe with a file of accelerate, without the folder. */
function notices(...args: Parameters<typeof load>): string[] {
  return load(...args).notices.map((notice) => notice.replaceAll(`${dir}/`, ""));
}

function refusal(accelerate: string, more = ""): string {
  try {
    load(accelerate, more);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.replaceAll(`${dir}/`, "");
  }
  assert.fail(`accepted:\n${accelerate}`);
}

const zero3 = `distributed_type: DEEPSPEED
deepspeed_config:
  zero_stage: 3
  zero3_init_flag: true
  offload_optimizer_device: none
mixed_precision: bf16
num_processes: 4
num_machines: 1
machine_rank: 0
main_training_function: main
downcast_bf16: 'no'
rdzv_backend: static
tpu_env: []
use_cpu: false
`;

test("accelerate_config: process count, ZeRO stage and precision are read, the rest that asks is named", () => {
  const { config } = load(zero3);
  assert.equal(config.bf16, true);
  assert.equal(config.zeroStage, 3);
  assert.deepEqual(notices(zero3), [
    "accelerate.yaml asks for 4 processes and one runs: a step is a mean over 32 examples, not 128; for the " +
      "same steps: --nproc 4 or --gradient_accumulation_steps 64",
    "accelerate.yaml: no effect: rdzv_backend, deepspeed_config.zero3_init_flag",
  ]);
  const file = readAccelerateConfig(write("zero3.yaml", zero3));
  assert.deepEqual([file.processes, file.zeroStage, file.precision], [4, 3, "bf16"]);
});

test("accelerate_config: a recipe that names its precision keeps it, unless the file says otherwise", () => {
  assert.equal(load("mixed_precision: 'no'\n", "bf16: true\n").config.bf16, true);
  assert.equal(load("mixed_precision: no\n").config.bf16, false);
  assert.equal(load("mixed_precision: bf16\n", "bf16: true\n").config.bf16, true);
  assert.deepEqual(load("mixed_precision: bf16\nnum_processes: 1\n").notices, []);
  assert.equal(
    refusal("mixed_precision: bf16\n", "bf16: false\n"),
    "accelerate.yaml:1:18  mixed_precision: bf16 contradicts recipe.yaml:7:1  bf16: false; keep one of them",
  );
  assert.equal(
    refusal("mixed_precision: fp16\n"),
    'accelerate.yaml:1:18  mixed_precision: "fp16" cannot be honoured: only bf16 and f32 are supported; use bf16',
  );
});

test("accelerate_config: the number of processes is compared with those that run", () => {
  const file = "num_processes: 4\n";
  assert.deepEqual(notices(file, "", [], 4), []);
  assert.deepEqual(notices(file, "", [], 8), [
    "accelerate.yaml asks for 4 processes and 8 run: a step is a mean over 256 examples, not 128; for the same " +
      "steps: --nproc 4 or --gradient_accumulation_steps 8",
  ]);
  // 16 accumulations of 4 processes are no whole number of accumulations of 3.
  assert.deepEqual(notices(file, "", [], 3), [
    "accelerate.yaml asks for 4 processes and 3 run: a step is a mean over 96 examples, not 128; for the same " +
      "steps: --nproc 4",
  ]);
  assert.match(notices("num_processes: 1\n", "", [], 2)[0]!, /asks for 1 process and 2 run: /);
});

test("accelerate_config: sharding and offloading hold where the recipe says nothing of them", () => {
  const file =
    "deepspeed_config:\n  zero_stage: 2\n  offload_optimizer_device: cpu\nnum_processes: 2\n";
  const taken = load(file, "", [], 2);
  assert.deepEqual([taken.config.zeroStage, taken.config.offloadOptimizer], [2, "cpu"]);
  assert.deepEqual(taken.notices, []);
  const kept = load(file, "zero_stage: 3\n", ["--offload_optimizer", "none"], 2);
  assert.deepEqual([kept.config.zeroStage, kept.config.offloadOptimizer], [3, "none"]);
  assert.deepEqual(notices(file, "zero_stage: 3\n", ["--offload_optimizer", "none"], 2), [
    "accelerate.yaml:2:15  deepspeed_config.zero_stage: 2 is not taken: the recipe has zero_stage: 3",
    "accelerate.yaml:3:29  deepspeed_config.offload_optimizer_device: cpu is not taken: the recipe has " +
      "offload_optimizer: none",
  ]);
  assert.equal(
    refusal("deepspeed_config:\n  offload_optimizer_device: nvme\n"),
    "accelerate.yaml:2:29  deepspeed_config.offload_optimizer_device: nvme is not supported: expected none or cpu",
  );
});

test("accelerate_config: what a recipe says too has to agree", () => {
  const clipping = (value: string) => `deepspeed_config:\n  gradient_clipping: ${value}\n`;
  load(clipping("1.0"));
  load(clipping("auto"));
  load(clipping("0.2"), "max_grad_norm: 0.2\n");
  assert.equal(
    refusal(clipping("0.2")),
    "accelerate.yaml:2:22  deepspeed_config.gradient_clipping: 0.2 contradicts max_grad_norm: 1 of the recipe; write the same number",
  );
  assert.match(
    refusal("deepspeed_config:\n  gradient_accumulation_steps: 4\n"),
    /4 contradicts gradient_accumulation_steps: 16 of the recipe/,
  );
  assert.match(
    refusal("deepspeed_config:\n  deepspeed_config_file: ds.json\n"),
    /^accelerate\.yaml:2:26 {2}deepspeed_config\.deepspeed_config_file: a DeepSpeed file may name another optimizer/,
  );
});

test("accelerate_config: a file that cannot be used is refused with its place", () => {
  assert.equal(
    refusal("num_processes: many\n"),
    'accelerate.yaml:1:16  num_processes: expected a number, received "many"',
  );
  assert.equal(
    refusal("deepspeed_config:\n  zero_stage: 4\n"),
    "accelerate.yaml:2:15  deepspeed_config.zero_stage: expected a number at most 3, received 4",
  );
  const options = { accelerateConfig: path.join(dir, "no.yaml") };
  assert.throws(() => loadRecipe(write("recipe.yaml", recipe), [], options), {
    code: "ERR_SIMPER_CONFIG",
    message: `${dir}/no.yaml: cannot read the accelerate configuration: there is no such file`,
  });
});

test("accelerate_config: every key of the reference's files is read, named, or asks for nothing", () => {
  const { reference } = JSON.parse(readFileSync(fixture("config", "keys.json"), "utf8")) as {
    reference: { accelerate: string[] };
  };
  assert.ok(reference.accelerate.length > 20);
  const read = [
    ...["num_processes", "mixed_precision", "distributed_type", "deepspeed_config"],
    "deepspeed_config.zero_stage",
    "deepspeed_config.offload_optimizer_device",
  ];
  const maps = new Set(["deepspeed_config", "fsdp_config"]);
  for (const key of reference.accelerate) {
    if (read.includes(key)) continue;
    const [outer, inner] = key.split(".") as [string, string?];
    const value = maps.has(key) ? "{a: 1}" : "something";
    const text = inner === undefined ? `${key}: ${value}\n` : `${outer}:\n  ${inner}: ${value}\n`;
    const { unread } = readAccelerateConfig(write("one.yaml", text));
    assert.deepEqual(unread, [outer === "fsdp_config" ? outer : key], key);
  }
});
