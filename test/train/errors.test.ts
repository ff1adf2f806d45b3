import assert from "node:assert/strict";
import { chmodSync, cpSync, existsSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { SimperError } from "#src/errors.js";
import {
  makeTinyModel,
  randomWeights,
  tinyConfig,
  weightShapes,
  writeWeights,
} from "../model/tiny.js";
import {
  checkpointSteps,
  gqaModel,
  gqaPairs,
  outputOf,
  type PairRow,
  readLines,
  readTensors,
  runCli,
  runRecipe,
  temporaryFolder,
  trajectory,
  trajectoryRecipe,
  words,
  writeLines,
} from "./support.js";

/** For `assert.rejects`: an error of ours whose message and hint match. */
function failure(name: string, message: RegExp, hint = /./) {
  return (error: unknown) => {
    if (!(error instanceof SimperError)) throw error;
    assert.equal(error.name, name, error.message);
    assert.match(error.message, message);
    assert.match(error.hint ?? "", hint);
    return true;
  };
}

function run(t: TestContext, changes: Partial<RecipeInput>) {
  const outputDir = path.join(temporaryFolder(t), "run");
  return runRecipe({ ...trajectory({ maxSteps: 2, ...changes }), outputDir });
}

/** A copy of the fixture's model that may be spoilt. */
function copyOfModel(t: TestContext): string {
  const dir = path.join(temporaryFolder(t), "model");
  cpSync(gqaModel, dir, { recursive: true });
  return dir;
}

test("a model directory that is not there", async (t) => {
  await assert.rejects(
    run(t, { modelNameOrPath: "no/such/model" }),
    failure(
      "CheckpointError",
      /no\/such\/model\/config\.json: cannot be read: ENOENT/,
      /must be a local folder/,
    ),
  );
});

test("a model directory without weights", async (t) => {
  const dir = path.join(temporaryFolder(t), "bare");
  cpSync(path.join(gqaModel, "config.json"), path.join(dir, "config.json"));
  await assert.rejects(
    run(t, { modelNameOrPath: dir }),
    failure("CheckpointError", /bare/, /safetensors/),
  );
});

test("weights that were cut short", async (t) => {
  const dir = copyOfModel(t);
  truncateSync(path.join(dir, "model.safetensors"), 100_000);
  await assert.rejects(
    run(t, { modelNameOrPath: dir }),
    failure(
      "CheckpointError",
      /model\.safetensors: tensor ".*": its data ends at byte \d+ of \d+; the file is cut short$/,
    ),
  );
});

/** A copy of the tiny model's tensors, changed, then written under its config. */
async function spoilt(
  t: TestContext,
  change: (tensors: [string, number[], Float32Array][]) => [string, number[], Float32Array][],
): Promise<string> {
  const dir = await makeTinyModel(path.join(temporaryFolder(t), "model"), { tokenizer: false });
  const shapes = weightShapes(tinyConfig);
  const tensors = [...randomWeights(tinyConfig)].map(
    ([name, values]): [string, number[], Float32Array] => [name, shapes.get(name)!, values],
  );
  await writeWeights(path.join(dir, "model.safetensors"), change(tensors));
  return dir;
}

const tensorCases: Readonly<Record<string, [Parameters<typeof spoilt>[1], RegExp]>> = {
  "a missing tensor": [
    (tensors) => tensors.filter(([name]) => name !== "model.norm.weight"),
    /: tensor "model\.norm\.weight" is missing$/,
  ],
  "an extra tensor": [
    (tensors) => [...tensors, ["model.layers.0.self_attn.q_proj.bias", [32], new Float32Array(32)]],
    /: tensor "model\.layers\.0\.self_attn\.q_proj\.bias" is not part of the model$/,
  ],
  "a tensor of another shape": [
    (tensors) =>
      tensors.map((tensor) =>
        tensor[0] === "model.layers.1.mlp.down_proj.weight"
          ? [tensor[0], [48, 32], tensor[2]]
          : tensor,
      ),
    /: tensor "model\.layers\.1\.mlp\.down_proj\.weight" has shape \[48, 32\], expected \[32, 48\]$/,
  ],
  "several at once, the first five named": [
    (tensors) => tensors.filter(([name]) => !name.startsWith("model.layers.1.")),
    /(tensor "model\.layers\.1\.[^;]* is missing; ){5}and 4 more$/,
  ],
};
for (const [name, [change, message]] of Object.entries(tensorCases)) {
  test(`weights that do not fit the config: ${name}`, async (t) => {
    const modelNameOrPath = await spoilt(t, change);
    await assert.rejects(
      run(t, { modelNameOrPath }),
      failure("CheckpointError", message, /must belong to the same model/),
    );
  });
}

// Fields that change the arithmetic; each is named with what was expected.
const configCases: readonly [Record<string, unknown>, RegExp][] = [
  [
    { model_type: "gpt2" },
    /config\.json: model_type: expected one of llama, mistral, qwen2, qwen3, received "gpt2"/,
  ],
  [{ attention_bias: true }, /config\.json: attention_bias: expected false, received true/],
  [{ mlp_bias: true }, /mlp_bias: expected false, received true/],
  [{ hidden_act: "gelu" }, /hidden_act: expected "silu" or "swish", received "gelu"/],
  [
    { rope_scaling: { rope_type: "llama3", factor: 8 } },
    /rope_scaling\.low_freq_factor: expected a number above 0, received nothing/,
  ],
  [
    { rope_scaling: { type: "longrope", factor: 2 } },
    /rope_scaling\.rope_type: expected one of default, linear, .*, received "longrope"/,
  ],
  [{ sliding_window: 4096 }, /sliding_window: expected this field to be absent, received 4096/],
  [{ num_key_value_heads: 4 }, /num_key_value_heads: expected a divisor of 6/],
  [{ vocab_size: undefined }, /vocab_size: expected a whole number above 0, received nothing/],
  [{ rms_norm_eps: "1e-5" }, /rms_norm_eps: expected a number above 0, received "1e-5"/],
];
for (const [fields, message] of configCases) {
  test(`config.json with ${JSON.stringify(fields)} is refused, not computed wrongly`, async (t) => {
    const dir = copyOfModel(t);
    const file = path.join(dir, "config.json");
    const config = JSON.parse(readFileSync(file, "utf8"));
    writeFileSync(file, JSON.stringify({ ...config, ...fields }));
    await assert.rejects(
      run(t, { modelNameOrPath: dir }),
      failure("CheckpointError", message, /^/),
    );
  });
}

test("a token that the model's vocabulary does not have", async (t) => {
  const folder = temporaryFolder(t);
  const rows = readLines<PairRow>(gqaPairs);
  const row = rows[3]!;
  row.chosen_input_ids[0] = 211;
  const data = writeLines(path.join(folder, "pairs.jsonl"), rows);
  await assert.rejects(
    run(t, { datasetMixer: { [data]: 1 } }),
    failure("DataError", /pairs\.jsonl:4.*211/, /./),
  );
});

test("NaN in the model's weights stops the run at step 1, before anything is saved", async (t) => {
  const folder = temporaryFolder(t);
  const change = (weights: Map<string, Float32Array>) => {
    weights.get("model.layers.0.mlp.up_proj.weight")![7] = Number.NaN;
  };
  const modelNameOrPath = await makeTinyModel(path.join(folder, "model"), {
    tokenizer: false,
    change,
  });
  const outputDir = path.join(folder, "run");
  await assert.rejects(
    runRecipe({
      ...trajectory({ modelNameOrPath, saveStrategy: "steps", saveSteps: 1 }),
      outputDir,
    }),
    failure(
      "NumericsError",
      /^step 1: loss NaN, gradient norm NaN: expected finite numbers; first in layer 0, forward: matmul /,
      /NaN in the model's weights/,
    ),
  );
  assert.deepEqual(checkpointSteps(outputDir), []);
  assert.ok(!existsSync(path.join(outputDir, "model.safetensors")));
});

test("a run that diverges stops with exit code 1, and its last checkpoint is intact", async (t) => {
  const outputDir = path.join(temporaryFolder(t), "run");
  const diverge = {
    model_name_or_path: gqaModel,
    learning_rate: 1e30,
    warmup_ratio: 0,
    weight_decay: 0,
    lr_scheduler_type: "constant",
    save_strategy: "steps",
    save_steps: 1,
    output_dir: outputDir,
  };
  const { code, stderr } = await runCli(["train", trajectoryRecipe, ...words(diverge)]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /simper-native: step \d+: loss .*: expected finite numbers; first in .*\n {2}lower learning_rate/,
  );
  const step = checkpointSteps(outputDir).at(-1)!;
  assert.equal(outputOf(outputDir).steps.at(-1)!.step, step);
  const tensors = await readTensors(path.join(outputDir, `checkpoint-${step}`));
  for (const [name, { values }] of tensors) assert.ok(values.every(Number.isFinite), name);
});

test("an output_dir that cannot be written", async (t) => {
  const folder = temporaryFolder(t);
  const file = path.join(folder, "file");
  writeFileSync(file, "");
  const outputDir = path.join(file, "run");
  await assert.rejects(
    runRecipe({ ...trajectory({}), outputDir }),
    failure(
      "CheckpointError",
      /^output_dir .*file\/run: ENOTDIR/,
      /choose a folder that can be written/,
    ),
  );
  if (process.getuid?.() === 0) {
    t.diagnostic("permissions: skipped: root may write everywhere");
    return;
  }
  chmodSync(folder, 0o500);
  await assert.rejects(
    runRecipe({ ...trajectory({}), outputDir: path.join(folder, "new") }),
    failure("CheckpointError", /^output_dir .*new: EACCES/, /choose a folder that can be written/),
  );
  chmodSync(folder, 0o700);
});

// How each kind of error ends the command line.
const exits: readonly [string, string[], number, RegExp][] = [
  ["a device that is not there", ["train", trajectoryRecipe, "--device", "cuda"], 1, /cuda/i],
  [
    "a missing model",
    ["train", trajectoryRecipe, "--model_name_or_path", "nowhere"],
    1,
    /nowhere\/config\.json/,
  ],
  [
    "a mistyped key",
    ["train", trajectoryRecipe, "--learning_rte", "1"],
    2,
    /learning_rte.*learning_rate/,
  ],
  ["a missing recipe", ["train", "nowhere.yaml"], 2, /nowhere\.yaml/],
  [
    "missing data",
    ["train", trajectoryRecipe, "--dataset_mixer", "{nowhere.jsonl: 1}"],
    2,
    /nowhere\.jsonl/,
  ],
];
for (const [name, command, exitCode, message] of exits) {
  test(`exit code ${exitCode} for ${name}, and no stack`, async (t) => {
    const outputDir = path.join(temporaryFolder(t), "run");
    const { code, stdout, stderr } = await runCli([...command, "--output_dir", outputDir]);
    assert.equal(code, exitCode, stderr);
    assert.match(stderr, message);
    assert.doesNotMatch(stdout + stderr, /\n\s+at /);
    const lines = stderr
      .trim()
      .split("\n")
      .filter((line) => !/^simper-native: not in the recipe/.test(line));
    assert.ok(lines.length <= 3, stderr);
    assert.ok(!existsSync(path.join(outputDir, "model.safetensors")));
  });
}
