import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { NumericsError } from "#src/errors.js";
import { hostPairLoss } from "#src/loss/host.js";
import { makeTinyModel } from "../model/tiny.js";
import {
  checkpointSteps,
  gqaPairs,
  outputOf,
  type PairRow,
  readLines,
  readTensors,
  runRecipe,
  temporaryFolder,
  trajectory,
  weightBytes,
  withoutTimes,
  writeLines,
} from "../train/support.js";

type Weights = Map<string, Float32Array>;

/** A tiny untied model whose weights `change` has spoilt. */
function spoilt(t: TestContext, change: (weights: Weights) => void): Promise<string> {
  const options = { tokenizer: false, config: { tie_word_embeddings: false }, change };
  return makeTinyModel(path.join(temporaryFolder(t), "model"), options);
}

/** The message of a run that stops. */
async function failure(t: TestContext, changes: Partial<RecipeInput>): Promise<string> {
  const outputDir = path.join(temporaryFolder(t), "run");
  const error = await runRecipe({ ...trajectory(changes), outputDir }).then(
    () => assert.fail("the run ends well"),
    (error: unknown) => error,
  );
  if (!(error instanceof NumericsError)) throw error;
  assert.match(error.hint!, /lower learning_rate.*last checkpoint is intact.*on_nonfinite: skip/);
  assert.deepEqual(checkpointSteps(outputDir), [], "nothing of the failed step is saved");
  assert.equal(existsSync(path.join(outputDir, "model.safetensors")), false);
  return error.message;
}

// Where a value is spoilt, and the op that must be named: the first that computes with it.
const places: readonly [string, string, number, number, RegExp][] = [
  [
    "an MLP weight",
    "model.layers.1.mlp.up_proj.weight",
    7,
    Number.NaN,
    /first in layer 1, forward: matmul wrote NaN to gateUp at \[\d+, 48\]; its weight gateUp holds NaN already$/,
  ],
  [
    "an attention weight",
    "model.layers.0.self_attn.v_proj.weight",
    32,
    Number.POSITIVE_INFINITY,
    /first in layer 0, forward: matmul wrote -?(Infinity|NaN) to qkv at \[\d+, 49\]; its weight qkv holds Infinity already$/,
  ],
  [
    "the final norm",
    "model.norm.weight",
    3,
    Number.NEGATIVE_INFINITY,
    /first in embedding, final norm and head, forward: add_rmsnorm_forward wrote -?Infinity to final at \[\d+, 3\]; its weight norm holds -Infinity/,
  ],
  [
    "the head",
    "lm_head.weight",
    40,
    Number.NaN,
    /first in embedding, final norm and head, forward: matmul wrote NaN to logits at \[\d+, 1\]; its weight head/,
  ],
];
for (const bf16 of [false, true]) {
  for (const [name, tensor, element, value, message] of places) {
    test(`stop names the first op and layer: ${name}, ${bf16 ? "bf16" : "f32"}`, async (t) => {
      const model = await spoilt(t, (weights) => {
        weights.get(tensor)![element] = value;
      });
      const text = await failure(t, { modelNameOrPath: model, bf16, gradientCheckpointing: bf16 });
      assert.match(text, /^step 1: loss .*, gradient norm .*: expected finite numbers; first in /);
      assert.match(text, message);
    });
  }
}

test("stop names an op of the backward, too", async (t) => {
  // A loss of finite value whose derivative is none.
  const loss = hostPairLoss("steep", ({ chosen }) => ({
    loss: chosen.mean,
    dChosen: Number.POSITIVE_INFINITY,
    dRejected: 0,
  }));
  const outputDir = path.join(temporaryFolder(t), "run");
  const run = runRecipe({ ...trajectory({}), outputDir }, { loss });
  await assert.rejects(run, {
    name: "NumericsError",
    message: /first in .*head, backward: logprob_backward (wrote NaN|wrote -?Infinity) to logits/,
  });
});

test("a gradient whose square is too large is said so", async (t) => {
  const loss = hostPairLoss("huge", () => ({ loss: 0, dChosen: 1e30, dRejected: 0 }));
  const outputDir = path.join(temporaryFolder(t), "run");
  await assert.rejects(runRecipe({ ...trajectory({}), outputDir }, { loss }), {
    message:
      /^step 1: loss 0, gradient norm Infinity: .*; every value of its passes is finite, but the square of a gradient/,
  });
});

/** Token 600 is only in pair 5; its embedding is NaN, so that the step with this pair has no finite gradient. */
async function oneBadPair(t: TestContext): Promise<Partial<RecipeInput>> {
  const bad = 600;
  const model = await spoilt(t, (weights) => {
    weights.get("model.embed_tokens.weight")!.fill(Number.NaN, bad * 32, bad * 32 + 32);
  });
  const folder = temporaryFolder(t);
  const rows = readLines<PairRow>(gqaPairs);
  rows[5]!.chosen_input_ids[0] = bad;
  rows[5]!.chosen_labels[0] = -100;
  const data = writeLines(path.join(folder, "pairs.jsonl"), rows);
  return { modelNameOrPath: model, datasetMixer: { [data]: 1 }, maxSteps: 7 };
}

for (const bf16 of [false, true]) {
  test(`skip leaves the step out and goes on, resumable bit for bit, ${bf16 ? "bf16" : "f32"}`, async (t) => {
    const recipe = { ...(await oneBadPair(t)), bf16, onNonfinite: "skip" as const };
    const whole = path.join(temporaryFolder(t), "run");
    const { records, notices } = await runRecipe({ ...trajectory(recipe), outputDir: whole });
    // 14 pairs, 4 a step: pair 5 is in the second step of each epoch, and an epoch has 4 steps.
    const skipped = records.filter((record) => record.skipped).map(({ step }) => step);
    assert.deepEqual(skipped, [2, 6]);
    assert.equal(records.length, 7);
    for (const record of records) {
      if (!record.skipped) assert.ok(Number.isFinite(record.loss), `step ${record.step}`);
    }
    assert.equal(notices.filter((text) => /^step 2: .*; the step is skipped/.test(text)).length, 1);
    for (const [name, { values }] of await readTensors(whole)) {
      const wrong = [...values].filter((value) => !Number.isFinite(value)).length;
      assert.equal(wrong, name === "model.embed_tokens.weight" ? 32 : 0, name);
    }
    // The losses after the skipped step are those of other weights than before it.
    assert.notEqual(records[2]!.loss, records[0]!.loss);

    const outputDir = path.join(temporaryFolder(t), "run");
    const saving = { ...trajectory({ ...recipe, saveStrategy: "steps", saveSteps: 1 }), outputDir };
    const stop = new AbortController();
    await runRecipe(saving, {
      signal: stop.signal,
      watch: { step: ({ step }) => step === 2 && stop.abort() },
    });
    const stopped = checkpointSteps(outputDir).at(-1)!;
    assert.ok(stopped >= 2 && stopped < 7, `stopped at ${stopped}`);
    const resumed = await runRecipe({ ...saving, resumeFromCheckpoint: true });
    assert.deepEqual(withoutTimes(resumed.records), withoutTimes(records));
    assert.ok(weightBytes(outputDir).equals(weightBytes(whole)));
    const history = (dir: string) =>
      JSON.parse(readFileSync(path.join(dir, "trainer_state.json"), "utf8")).log_history.filter(
        (entry: object) => "loss" in entry,
      );
    const clean = (dir: string) => withoutTimes(history(dir));
    assert.deepEqual(clean(outputDir), clean(whole));
  });
}

test("the default stops there, and the checkpoint before it is what it should be", async (t) => {
  const recipe = await oneBadPair(t);
  const outputDir = path.join(temporaryFolder(t), "run");
  const saving = { ...trajectory({ ...recipe, saveStrategy: "steps", saveSteps: 1 }), outputDir };
  await assert.rejects(runRecipe(saving), {
    name: "NumericsError",
    message:
      /^step 2: loss NaN.*; first in embedding, final norm and head, forward: embedding_forward wrote NaN to x at \[\d+, 0\]; its weight embedding holds NaN already$/,
  });
  assert.deepEqual(checkpointSteps(outputDir), [1]);
  const { steps } = outputOf(outputDir);
  assert.deepEqual(
    steps.map(({ step }) => step),
    [1],
  );
});

test("an evaluation that is not finite is said with its first example; training goes on", async (t) => {
  const { modelNameOrPath } = await oneBadPair(t);
  const folder = temporaryFolder(t);
  const data = path.join(folder, "data");
  mkdirSync(data);
  const rows = readLines<PairRow>(gqaPairs);
  writeLines(path.join(data, "train.jsonl"), rows);
  rows[2]!.rejected_input_ids[0] = 600;
  rows[2]!.rejected_labels[0] = -100;
  writeLines(path.join(data, "test.jsonl"), rows.slice(0, 4));
  const recipe = {
    modelNameOrPath,
    datasetMixer: { [data]: 1 },
    doEval: true,
    maxSteps: 2,
    maxTokensPerMicroBatch: 128, // the four pairs are not packed in their order
  };
  const outputDir = path.join(folder, "run");
  const { notices, evals, steps } = await runRecipe({ ...trajectory(recipe), outputDir });
  assert.deepEqual(
    notices.filter((text) => text.startsWith("evaluation")),
    [
      `evaluation at step 2: 1 of 4 examples have a loss that is not finite, first ${data}/test.jsonl:3; look there, and for NaN in the model's weights`,
    ],
  );
  assert.equal(steps.length, 2);
  assert.equal(evals.length, 1);
  assert.ok(existsSync(path.join(outputDir, "model.safetensors")));
});

test("skip does not hide a loss that is no number beside a finite gradient", async (t) => {
  const loss = hostPairLoss("odd", () => ({ loss: Number.NaN, dChosen: 1, dRejected: -1 }));
  const outputDir = path.join(temporaryFolder(t), "run");
  const run = runRecipe({ ...trajectory({ onNonfinite: "skip" }), outputDir }, { loss });
  await assert.rejects(run, { message: /^step 1: loss NaN, gradient norm [\d.]+:/ });
});
