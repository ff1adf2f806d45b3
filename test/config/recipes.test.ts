import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import * as z from "zod";
import { foreignKeys } from "#src/config/foreign.js";
import { recipeKeyHelp, recipeKeys } from "#src/config/help.js";
import { defineConfig, loadRecipe } from "#src/config/load.js";
import { toCodeName, toRecipeKey } from "#src/config/names.js";
import { aliases, recipeSchema } from "#src/config/schema.js";
import { translations } from "#src/config/translate.js";
import { parseYamlMap } from "#src/config/yaml.js";
import { fixture, root } from "../support/paths.js";

// Values of the four published SimPER recipes; [A.1] of the project's notes on the reference.
const published = {
  "llama-3-8b-base": {
    model: "princeton-nlp/Llama-3-Base-8B-SFT",
    data: "HuggingFaceH4/ultrafeedback_binarized",
    splits: ["train_prefs", "test_prefs"],
    lr: 6e-7,
    length: [2048, 1800],
    dead: [2.0, 0.5],
  },
  "llama-3-8b-instruct": {
    model: "meta-llama/Meta-Llama-3-8B-Instruct",
    data: "princeton-nlp/llama3-ultrafeedback",
    splits: ["train", "test"],
    lr: 1e-6,
    length: [2048, 1800],
    dead: [2.5, 0.55],
  },
  "mistral-7b-base": {
    model: "alignment-handbook/zephyr-7b-sft-full",
    data: "HuggingFaceH4/ultrafeedback_binarized",
    splits: ["train_prefs", "test_prefs"],
    lr: 3e-7,
    length: [1024, 512],
    dead: [2.0, 0.8],
  },
  "mistral-7b-instruct": {
    model: "mistralai/Mistral-7B-Instruct-v0.2",
    data: "princeton-nlp/mistral-instruct-ultrafeedback",
    splits: ["train", "test"],
    lr: 5e-7,
    length: [2048, 1800],
    dead: [2.5, 0.1],
  },
};

for (const [name, values] of Object.entries(published)) {
  test(`configs/${name}-simper.yaml says what the published recipe says`, () => {
    const { config, notices } = loadRecipe(path.join(root, "configs", `${name}-simper.yaml`));
    const expected = {
      modelNameOrPath: values.model,
      torchDtype: null,
      datasetMixer: { [values.data]: 1 },
      datasetSplits: values.splits,
      maxLength: values.length[0],
      maxPromptLength: values.length[1],
      truncationMode: "keep_end",
      lossType: "SimPER",
      beta: values.dead[0],
      gammaBetaRatio: values.dead[1],
      learningRate: values.lr,
      lrSchedulerType: "cosine",
      warmupRatio: 0.1,
      warmupSteps: 0,
      weightDecay: 0,
      adamBeta1: 0.9,
      adamBeta2: 0.999,
      adamEpsilon: 1e-8,
      maxGradNorm: 1,
      numTrainEpochs: 1,
      maxSteps: -1,
      perDeviceTrainBatchSize: 2,
      perDeviceEvalBatchSize: 4,
      gradientAccumulationSteps: 16,
      gradientCheckpointing: true,
      bf16: true,
      seed: 42,
      doEval: true,
      evalStrategy: "steps",
      evalSteps: 400,
      loggingSteps: 5,
      saveStrategy: "steps",
      saveSteps: 1000000,
      saveTotalLimit: 20,
      outputDir: `outputs/${name}-simper`,
      runName: `${name}-simper`,
      reportTo: ["wandb"],
      optim: "adamw_torch",
    };
    for (const [key, value] of Object.entries(expected)) {
      assert.deepEqual(config[key as keyof typeof config], value, key);
    }
    assert.equal(notices.length, 1);
    for (const key of [
      "attn_implementation",
      "beta",
      "hub_model_id",
      "log_level",
      "use_reentrant",
    ]) {
      const named = key === "use_reentrant" ? "gradient_checkpointing_kwargs" : key;
      assert.ok(notices[0]!.includes(named), named);
    }
  });
}

test("every recipe of configs/ names the schema that editors check it with", () => {
  const files = readdirSync(path.join(root, "configs"), { recursive: true, encoding: "utf8" });
  const recipes = files.filter((file) => file.endsWith(".yaml"));
  assert.ok(recipes.length >= 6, recipes.join());
  for (const file of recipes) {
    const first = readFileSync(path.join(root, "configs", file), "utf8").split("\n")[0]!;
    const schema = /^# yaml-language-server: \$schema=(.+)$/.exec(first)?.[1];
    assert.ok(schema, `${file}: ${first}`);
    const found = path.resolve(root, "configs", path.dirname(file), schema);
    assert.equal(found, path.join(root, "configs/schema.json"), file);
  }
});

test("the schema for editors takes every recipe of configs/, and refuses what loadRecipe refuses", () => {
  const text = readFileSync(path.join(root, "configs/schema.json"), "utf8");
  const schema = z.fromJSONSchema(JSON.parse(text) as Parameters<typeof z.fromJSONSchema>[0]);
  const read = (file: string) =>
    Object.fromEntries(
      parseYamlMap(readFileSync(path.join(root, "configs", file), "utf8"), file).values,
    );
  const files = readdirSync(path.join(root, "configs")).filter((name) => name.endsWith(".yaml"));
  for (const file of [...files, "quickstart/pretrain.yaml"]) {
    const found = schema.safeParse(read(file));
    assert.ok(found.success, `${file}: ${String(found.error)}`);
  }
  const base = read("quickstart.yaml");
  for (const wrong of [
    { learning_rate: "fast" },
    { learning_rat: 1 },
    { use_peft: true },
    { lr_scheduler_type: "polynomial" },
    { report_to: "mlfow" },
    { dataset_mixer: { a: 2 } },
    { lr_scheduler_kwargs: { min: 1 } },
  ]) {
    assert.ok(!schema.safeParse({ ...base, ...wrong }).success, JSON.stringify(wrong));
  }
  for (const right of [
    { report_to: ["tensorboard", "wandb"] },
    { report_to: "all" },
    { report_to: ["mlflow", "wandb"] },
    { evaluation_strategy: "no" },
    { dataset_name: "x" },
    { push_to_hub: true },
    { use_peft: false },
    { save_steps: 0.5 },
  ]) {
    const found = schema.safeParse({ ...base, ...right });
    assert.ok(found.success, `${JSON.stringify(right)}: ${String(found.error)}`);
  }
});

interface Keys {
  readonly TrainingArguments: readonly string[];
  readonly trl: readonly string[];
  readonly defaults: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly older: Readonly<Record<string, readonly string[]>>;
  readonly reference: { readonly recipe: readonly string[] };
  readonly optim: readonly string[];
  readonly lr_scheduler_type: readonly string[];
}
const keys = JSON.parse(readFileSync(fixture("config", "keys.json"), "utf8")) as Keys;

const lists: Readonly<Record<string, readonly string[]>> = {
  "transformers' TrainingArguments": keys.TrainingArguments,
  "TRL's SFTConfig, DPOConfig, ModelConfig and ScriptArguments": keys.trl,
  "earlier releases": Object.values(keys.older).flat(),
  "the recipes of SimPER, SimPO and alignment-handbook": keys.reference.recipe,
};
const known = new Set([
  ...recipeKeys().map(({ key }) => key),
  ...Object.keys(foreignKeys),
  ...Object.keys(aliases),
  ...Object.keys(translations),
]);

for (const [source, defaults] of Object.entries(keys.defaults)) {
  test(`a recipe that writes out every default of ${source} loads`, () => {
    const more = { modelNameOrPath: "m", maxLength: 256, maxPromptLength: 128 };
    const given = Object.entries(defaults).filter(([key]) => key !== "model_name_or_path");
    const input = Object.fromEntries(given.map(([key, value]) => [toCodeName(key), value]));
    const { config, notices } = defineConfig({ ...input, ...more, datasetMixer: { a: 1 } });
    assert.equal(config.outputDir, "trainer_output");
    // What is named belongs to adapters and quantised weights, which are off.
    const named = source === "ModelConfig" ? /lora_r.*bnb_4bit_quant_type/ : undefined;
    if (named) assert.match(notices.join("\n"), named);
    else assert.deepEqual(notices, []);
  });
}

for (const [source, list] of Object.entries(lists)) {
  test(`every key of ${source} is known`, () => {
    assert.ok(list.length > 20);
    assert.deepEqual(
      list.filter((key) => !known.has(key)),
      [],
    );
  });
}

test("every optimizer and schedule of transformers is accepted, or named as not supported", () => {
  for (const [name, values] of [
    ["optim", keys.optim],
    ["lrSchedulerType", keys.lr_scheduler_type],
  ] as const) {
    const field = recipeSchema.shape[name];
    const later = (field.meta()?.later ?? []) as readonly string[];
    for (const value of values) {
      assert.notEqual(field.safeParse(value).success, later.includes(value), `${name}: ${value}`);
    }
  }
});

test("every key survives the way to code and back", () => {
  for (const name of Object.keys(recipeSchema.shape))
    assert.equal(toCodeName(toRecipeKey(name)), name);
});

test("a key is either ours or foreign, never both", () => {
  const own = [...recipeKeys().map(({ key }) => key), ...Object.keys(aliases)];
  const all = [...own, ...Object.keys(foreignKeys), ...Object.keys(translations)];
  assert.deepEqual(
    all.filter((key, i) => all.indexOf(key) !== i),
    [],
  );
});

test("every key has a description, and the help lists each with its default", () => {
  for (const { key, description } of recipeKeys()) assert.notEqual(description, "", key);
  const help = recipeKeyHelp();
  assert.match(help, /^ {2}learning_rate +Peak learning rate.*\[0\.00005\]$/m);
  assert.match(help, /^ {2}model_name_or_path +.*\[required\]$/m);
});
