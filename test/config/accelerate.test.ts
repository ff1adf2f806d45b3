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

function load(accelerate: string, more = "", words: string[] = []) {
  const accelerateConfig = write("accelerate.yaml", accelerate);
  return loadRecipe(write("recipe.yaml", recipe + more), words, { accelerateConfig });
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
  const { config, notices } = load(zero3);
  assert.equal(config.bf16, true);
  assert.deepEqual(
    notices.map((notice) => notice.replaceAll(`${dir}/`, "")),
    [
      "accelerate.yaml asks for 4 processes and one runs, and ZeRO stage 3 shards nothing: a step is a " +
        "mean over 32 examples, not 128; for the same steps: --gradient_accumulation_steps 64",
      "accelerate.yaml: no effect on one process: rdzv_backend, deepspeed_config.zero3_init_flag",
    ],
  );
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
