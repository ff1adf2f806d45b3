import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { foreignKeys } from "#src/config/foreign.js";
import { recipeKeyHelp, recipeKeys } from "#src/config/help.js";
import { loadRecipe } from "#src/config/load.js";
import { toCodeName, toRecipeKey } from "#src/config/names.js";
import { recipeSchema } from "#src/config/schema.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-recipes-"));
after(() => rmSync(dir, { recursive: true }));

// The settings of the four published SimPER recipes: the same keys, these values differ.
const published = [
  {
    model: "princeton-nlp/Llama-3-Base-8B-SFT",
    data: "HuggingFaceH4/ultrafeedback_binarized",
    splits: ["train_prefs", "test_prefs"],
    lr: 6e-7,
    length: [2048, 1800],
    dead: [2.0, 0.5],
  },
  {
    model: "meta-llama/Meta-Llama-3-8B-Instruct",
    data: "princeton-nlp/llama3-ultrafeedback",
    splits: ["train", "test"],
    lr: 1e-6,
    length: [2048, 1800],
    dead: [2.5, 0.55],
  },
  {
    model: "alignment-handbook/zephyr-7b-sft-full",
    data: "HuggingFaceH4/ultrafeedback_binarized",
    splits: ["train_prefs", "test_prefs"],
    lr: 3e-7,
    length: [1024, 512],
    dead: [2.0, 0.8],
  },
  {
    model: "mistralai/Mistral-7B-Instruct-v0.2",
    data: "princeton-nlp/mistral-instruct-ultrafeedback",
    splits: ["train", "test"],
    lr: 5e-7,
    length: [2048, 1800],
    dead: [2.5, 0.1],
  },
];

for (const recipe of published) {
  test(`the published settings of ${recipe.model} load with nothing refused`, () => {
    const file = path.join(dir, "recipe.yaml");
    const settings = {
      model_name_or_path: recipe.model,
      torch_dtype: null,
      attn_implementation: "flash_attention_2",
      dataset_mixer: { [recipe.data]: 1.0 },
      dataset_splits: recipe.splits,
      preprocessing_num_workers: 12,
      bf16: true,
      beta: recipe.dead[0],
      gamma_beta_ratio: recipe.dead[1],
      do_eval: true,
      evaluation_strategy: "steps",
      eval_steps: 400,
      gradient_accumulation_steps: 16,
      gradient_checkpointing: true,
      gradient_checkpointing_kwargs: { use_reentrant: false },
      hub_model_id: "simper-exps",
      learning_rate: recipe.lr,
      log_level: "info",
      logging_steps: 5,
      lr_scheduler_type: "cosine",
      max_length: recipe.length[0],
      max_prompt_length: recipe.length[1],
      num_train_epochs: 1,
      optim: "adamw_torch",
      output_dir: "outputs/run",
      run_name: "run",
      per_device_train_batch_size: 2,
      per_device_eval_batch_size: 4,
      push_to_hub: false,
      save_strategy: "steps",
      save_steps: 1000000,
      report_to: ["wandb"],
      save_total_limit: 20,
      seed: 42,
      warmup_ratio: 0.1,
    };
    writeFileSync(file, JSON.stringify(settings)); // JSON is YAML
    const { config, notices } = loadRecipe(file);
    assert.equal(config.modelNameOrPath, recipe.model);
    assert.equal(config.learningRate, recipe.lr);
    assert.deepEqual([config.maxLength, config.maxPromptLength], recipe.length);
    assert.deepEqual(config.datasetSplits, recipe.splits);
    assert.deepEqual([config.doEval, config.evalStrategy, config.evalSteps], [true, "steps", 400]);
    assert.equal(config.gradientCheckpointing, true);
    assert.equal(notices.length, 1);
    for (const key of ["attn_implementation", "beta", "hub_model_id", "report_to", "log_level"]) {
      assert.ok(notices[0]!.includes(key), key);
    }
  });
}

test("every key survives the way to code and back", () => {
  for (const name of Object.keys(recipeSchema.shape))
    assert.equal(toCodeName(toRecipeKey(name)), name);
});

test("a key is either ours or foreign, never both", () => {
  const own = new Set(recipeKeys().map(({ key }) => key));
  assert.deepEqual(
    Object.keys(foreignKeys).filter((key) => own.has(key)),
    [],
  );
});

test("every key has a description, and the help lists each with its default", () => {
  for (const { key, description } of recipeKeys()) assert.notEqual(description, "", key);
  const help = recipeKeyHelp();
  assert.match(help, /^ {2}learning_rate +Peak learning rate.*\[0\.00005\]$/m);
  assert.match(help, /^ {2}model_name_or_path +.*\[required\]$/m);
});
