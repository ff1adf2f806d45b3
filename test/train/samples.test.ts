import assert from "node:assert/strict";
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import { random32 } from "#src/data/order.js";
import { loadTokenizer } from "#src/data/tokenizer.js";
import { ConfigError, DataError } from "#src/errors.js";
import { loadModel } from "#src/inference/loaded-model.js";
import { Device } from "#src/native/index.js";
import { makePlan } from "#src/train/make-plan.js";
import type { SampleRecord } from "#src/train/samples.js";
import { makeTinyModel } from "../model/tiny.js";
import {
  checkpointSteps,
  gqaModel,
  readLines,
  runCli,
  runRecipe,
  splitFolder,
  startCli,
  temporaryFolder,
  trajectory,
  trajectoryRecipe,
  weightBytes,
  withoutTimes,
  words,
  writeLines,
} from "./support.js";

/** Answers of 1 to 9 words to questions of 1 to 12. */
function rows(count: number) {
  const text = (n: number) => Array.from({ length: n }, (_, i) => `word${(7 * n + i) % 10}`);
  const turn = (role: string, n: number) => ({ role, content: text(n).join(" ") });
  return Array.from({ length: count }, (_, i) => {
    const user = turn("user", 1 + (i % 12));
    return {
      chosen: [user, turn("assistant", 1 + (i % 9))],
      rejected: [user, turn("assistant", 1 + ((i + 4) % 9))],
    };
  });
}

/** Six steps with an evaluation and a checkpoint every two. */
async function recipe(
  folder: string,
  changes: Partial<RecipeInput> = {},
  extra: Record<string, unknown> = {},
): Promise<RecipeInput & { outputDir: string }> {
  const data = path.join(folder, "data");
  if (!existsSync(data)) {
    await splitFolder(folder, 1);
    writeLines(path.join(data, "train.jsonl"), rows(14));
    writeLines(path.join(data, "test.jsonl"), rows(20));
  }
  const modelNameOrPath = path.join(folder, "model");
  if (!existsSync(modelNameOrPath)) await makeTinyModel(modelNameOrPath, { extra });
  return {
    ...trajectory({
      modelNameOrPath,
      datasetMixer: { [data]: 1 },
      datasetSplits: ["train", "test"],
      maxSteps: 6,
      doEval: true,
      evalSteps: 2,
      saveStrategy: "steps",
      saveSteps: 2,
      generateDuringEval: true,
      generatePrompts: 5,
      generateMaxNewTokens: 7,
      ...changes,
    }),
    outputDir: path.join(folder, "run"),
  };
}

function samplesOf(outputDir: string): SampleRecord[] {
  return readLines<SampleRecord>(path.join(outputDir, "samples.jsonl"));
}

const bytesOf = (outputDir: string) => readFileSync(path.join(outputDir, "samples.jsonl"), "utf8");

for (const bf16 of [false, true]) {
  test(`samples.jsonl: what the checkpoint beside it would answer, token for token (bf16 ${bf16})`, async (t) => {
    const input = await recipe(temporaryFolder(t), { bf16 });
    const { outputDir } = await runRecipe(input);
    const samples = samplesOf(outputDir);
    assert.deepEqual(
      samples.map(({ step }) => step),
      [2, 4, 6].flatMap((step) => Array<number>(5).fill(step)),
    );
    const { datasetMixer: mixer } = input;
    const questions = readLines<ReturnType<typeof rows>[number]>(
      path.join(Object.keys(mixer)[0]!, "test.jsonl"),
    );
    for (const step of [2, 4, 6]) {
      const model = await loadModel(path.join(outputDir, `checkpoint-${step}`), {
        device: "cpu",
        bf16,
      });
      try {
        const tokenizer = await loadTokenizer(model.dir);
        const plain = (text: string) =>
          tokenizer.decode(tokenizer.encode(text, { addSpecialTokens: false }), {
            skipSpecialTokens: true,
          });
        for (const sample of samples.filter((record) => record.step === step)) {
          // The row it came from, by its three texts; prompts are rendered without a header for the answer.
          const row = questions.find(({ chosen, rejected }) => {
            const [user, first] = chosen.map(({ content }) => content);
            const texts = [`user\n\n${user}`, `assistant\n\n${first}`];
            const other = `assistant\n\n${rejected[1]!.content}`;
            const { prompt, chosen: right, rejected: wrong } = sample;
            return prompt.endsWith(texts[0]!) && right === texts[1] && wrong === other;
          });
          assert.ok(row, JSON.stringify(sample));
          const text =
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n" +
            `${row.chosen[0]!.content}<|eot_id|>`;
          assert.equal(sample.prompt, plain(text));
          const ids = tokenizer.encode(text, { addSpecialTokens: false });
          const [answer] = await model.generate([ids], { maxNewTokens: 7 });
          assert.equal(sample.completion, model.decode(answer!));
        }
      } finally {
        model.dispose();
      }
    }
    assert.ok(samples.some(({ completion }) => completion.length > 0));
  });
}

for (const [name, changes, extra] of [
  ["f32", {}, {}],
  ["bf16", { bf16: true }, {}],
  ["gradient checkpointing", { gradientCheckpointing: true }, {}],
  // A micro-batch of one pair: two prompts are answered at a time.
  ["small micro-batches", { maxTokensPerMicroBatch: 80, perDeviceTrainBatchSize: 1 }, {}],
  // The window is longer than every sequence of training, but not than a prompt with its answer.
  [
    "a sliding window",
    { generateMaxNewTokens: 60 },
    { model_type: "mistral", sliding_window: 90, head_dim: 8 },
  ],
] as const) {
  test(`generate_during_eval changes no bit of training: ${name}`, async (t) => {
    const folder = temporaryFolder(t);
    const input = await recipe(folder, { evalOnStart: true, ...changes }, extra);
    const sampled = await runRecipe(input);
    const plain = await runRecipe({
      ...input,
      generateDuringEval: false,
      outputDir: path.join(folder, "plain"),
    });
    assert.deepEqual(withoutTimes(sampled.records), withoutTimes(plain.records));
    assert.ok(weightBytes(sampled.outputDir).equals(weightBytes(plain.outputDir)));
    assert.deepEqual(
      [...new Set(samplesOf(sampled.outputDir).map(({ step }) => step))],
      [0, 2, 4, 6],
    );
    assert.ok(!existsSync(path.join(plain.outputDir, "samples.jsonl")));
  });
}

test("the prompts are the same at every evaluation; the seed decides which, and all are taken where there are fewer", async (t) => {
  const folder = temporaryFolder(t);
  const prompts = async (name: string, changes: Partial<RecipeInput>) => {
    const input = await recipe(folder, { maxSteps: 4, ...changes });
    const outputDir = path.join(folder, name);
    await runRecipe({ ...input, outputDir });
    const of = (step: number) =>
      samplesOf(outputDir).flatMap((record) => (record.step === step ? [record.prompt] : []));
    assert.deepEqual(of(2), of(4));
    return of(4);
  };
  const first = await prompts("a", { seed: 1 });
  assert.deepEqual(await prompts("b", { seed: 1, evalOnStart: true, learningRate: 0 }), first);
  assert.notDeepEqual(await prompts("c", { seed: 2 }), first);
  assert.equal((await prompts("d", { generatePrompts: 100 })).length, 20);
});

test("a resumed run's samples are those of a run that was never stopped", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, { evalOnStart: true });
  const { outputDir } = await runRecipe(input);
  const whole = bytesOf(outputDir);
  for (const step of [2, 4, 6]) {
    const resumeFromCheckpoint = path.join(outputDir, `checkpoint-${step}`);
    await runRecipe({ ...input, resumeFromCheckpoint });
    assert.equal(bytesOf(outputDir), whole, `resumed after step ${step}`);
  }
});

test("stopped while it answers, a run writes none of these answers, and all of them when it is resumed", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder);
  const whole = await runRecipe({ ...input, outputDir: path.join(folder, "whole") });
  // Every forward pass asks: this signal says stop at the n-th question.
  const signalAt = (n: number): AbortSignal => {
    let asked = 0;
    return {
      get aborted() {
        return ++asked > n;
      },
    } as AbortSignal;
  };
  let stops = 0;
  for (let n = 1; n < 200; n++) {
    const { summary } = await runRecipe(
      { ...input, resumeFromCheckpoint: true },
      { signal: signalAt(n) },
    );
    const seen = new Map<number, number>();
    const file = path.join(input.outputDir, "samples.jsonl");
    for (const { step } of existsSync(file) ? samplesOf(input.outputDir) : []) {
      seen.set(step, (seen.get(step) ?? 0) + 1);
    }
    for (const [step, count] of seen) assert.equal(count, 5, `step ${step}`);
    if (!summary.interrupted) break;
    stops++;
  }
  assert.ok(stops >= 6, `${stops} stops`);
  assert.equal(bytesOf(input.outputDir), bytesOf(whole.outputDir));
  assert.ok(weightBytes(input.outputDir).equals(weightBytes(whole.outputDir)));
});

test("an evaluation that is made up for leaves its records once, even where the run is killed before it saves again", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder);
  const whole = await runRecipe({ ...input, outputDir: path.join(folder, "whole") });
  const interruption = new AbortController();
  const stop = ({ step }: { step: number }) => (step === 4 ? interruption.abort() : undefined);
  // The record of step 4 is told before its evaluation, which then gives up.
  await runRecipe(input, { watch: { step: stop }, signal: interruption.signal });
  const checkpoint = path.join(input.outputDir, "checkpoint-4");
  const state = JSON.parse(readFileSync(path.join(checkpoint, "run_state.json"), "utf8"));
  assert.deepEqual([state.step, state.evaluatedStep], [4, 2]);
  const kept = path.join(folder, "kept");
  cpSync(checkpoint, kept, { recursive: true });
  for (let again = 0; again < 2; again++) {
    const resumed = await runRecipe({ ...input, resumeFromCheckpoint: checkpoint });
    assert.deepEqual(withoutTimes(resumed.records), withoutTimes(whole.records));
    assert.equal(bytesOf(input.outputDir), bytesOf(whole.outputDir));
    // As it was after a kill: both files go on beyond the checkpoint, which knows nothing of its evaluation.
    rmSync(checkpoint, { recursive: true });
    cpSync(kept, checkpoint, { recursive: true });
  }
});

test("killed again and again, a run ends with the same samples, best checkpoint and weights", async (t) => {
  const seed = Number(process.env.SIMPER_TEST_SEED ?? Date.now() % 2 ** 31);
  t.diagnostic(`SIMPER_TEST_SEED=${seed}`);
  const next = random32(seed);
  const folder = temporaryFolder(t);
  const { modelNameOrPath, datasetMixer } = await recipe(folder);
  const command = (outputDir: string) => [
    "train",
    trajectoryRecipe,
    ...words({
      model_name_or_path: modelNameOrPath,
      dataset_mixer: JSON.stringify(datasetMixer),
      max_steps: 20,
      learning_rate: 0.02,
      do_eval: true,
      eval_strategy: "steps",
      eval_steps: 1,
      save_strategy: "steps",
      save_steps: 1,
      save_total_limit: 1,
      load_best_model_at_end: true,
      generate_during_eval: true,
      generate_prompts: 4,
      generate_max_new_tokens: 6,
      resume_from_checkpoint: true,
      output_dir: outputDir,
    }),
  ];
  const expected = path.join(folder, "undisturbed");
  const whole = await runCli(command(expected));
  assert.equal(whole.code, 0, whole.stderr);
  const outputDir = path.join(folder, "killed");
  for (let kill = 0; kill < 6; kill++) {
    const run = startCli(command(outputDir));
    await run.printed(/^eval step \d+/m);
    await sleep((next() / 2 ** 32) * 250);
    run.child.kill("SIGKILL");
    if ((await run.ended).signal === null) break; // finished before the kill came
  }
  const { code, stderr } = await runCli(command(outputDir));
  assert.equal(code, 0, stderr);
  assert.equal(bytesOf(outputDir), bytesOf(expected));
  assert.deepEqual(checkpointSteps(outputDir), checkpointSteps(expected));
  assert.ok(weightBytes(outputDir).equals(weightBytes(expected)));
  const best = (dir: string) =>
    JSON.parse(readFileSync(path.join(dir, "trainer_state.json"), "utf8")).best_metric;
  assert.equal(best(outputDir), best(expected));
});

test("a run that starts anew leaves no answers of an earlier one", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, { maxSteps: 2 });
  await runRecipe(input);
  const once = bytesOf(input.outputDir);
  await runRecipe(input);
  assert.equal(bytesOf(input.outputDir), once);
  await runRecipe({ ...input, generateDuringEval: false });
  assert.equal(bytesOf(input.outputDir), "");
});

test("the key/value cache is in the memory plan, byte for byte, and the weights are there once", async (t) => {
  const input = await recipe(temporaryFolder(t), { maxSteps: 2 });
  const { config } = defineConfig(input);
  const line = (await makePlan(config)).lines.find(({ name }) => name === "key/value cache")!;
  assert.equal(line.lifetime, "samples");
  const without = await makePlan(defineConfig({ ...input, generateDuringEval: false }).config);
  assert.ok(!without.lines.some(({ name }) => name === "key/value cache"));
  assert.equal(line.shape[0], 2);
  const arenas: [string, number][] = [];
  const real = Device.prototype.arena;
  t.mock.method(Device.prototype, "arena", function (this: Device, bytes: number, name: string) {
    arenas.push([name, bytes]);
    return real.call(this, bytes, name);
  });
  await runRecipe(input);
  const of = (wanted: string) =>
    arenas.flatMap(([name, bytes]) => (name === wanted ? [bytes] : []));
  assert.deepEqual(of("key/value cache"), [line.bytes]);
  assert.equal(of("model and optimizer").length, 1);
  assert.equal(of("buffers").length, 1);
});

function failure(kind: typeof DataError | typeof ConfigError, message: RegExp, hint: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof kind, String(error));
    assert.match(error.message, message);
    assert.match(error.hint ?? "", hint);
    return true;
  };
}

test("generate_during_eval without a tokenizer, test rows or prompts is refused before training", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder);
  const data = await splitFolder(path.join(folder, "tokens"), 2);
  const tokens = { ...input, modelNameOrPath: gqaModel, datasetMixer: { [data]: 1 } };
  await assert.rejects(
    runRecipe(tokens),
    failure(
      DataError,
      /^generate_during_eval: .*model: expected a tokenizer, found no tokenizer\.json/,
      /copy the model's tokenizer files there, or leave the key out/,
    ),
  );
  const train = path.join(folder, "data", "train.jsonl");
  await assert.rejects(
    runRecipe({ ...input, datasetMixer: { [train]: 1 } }),
    failure(DataError, /^generate_during_eval: expected test rows to evaluate on/, /test\.jsonl/),
  );
  const bare = path.join(folder, "bare");
  const texts = [{ chosen: "abc", rejected: "xyz" }];
  await splitFolder(bare, 1);
  for (const name of ["train", "test"]) writeLines(path.join(bare, "data", `${name}.jsonl`), texts);
  // Without BOS nothing precedes the answers.
  const file = path.join(folder, "model", "tokenizer_config.json");
  writeFileSync(
    file,
    JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), bos_token: null }),
  );
  await assert.rejects(
    runRecipe({ ...input, datasetMixer: { [path.join(bare, "data")]: 1 } }),
    failure(
      DataError,
      /^generate_during_eval: expected pairs with a prompt in the test split, found none$/,
      /give the rows a prompt/,
    ),
  );
});

test("an answer that the model's rope scaling does not reach is refused before training", async (t) => {
  const folder = temporaryFolder(t);
  const dynamic = { rope_type: "dynamic", factor: 2 };
  const extra = { max_position_embeddings: 128, rope_scaling: dynamic };
  const input = await recipe(folder, { generateMaxNewTokens: 200 }, extra);
  await assert.rejects(
    runRecipe(input),
    failure(
      ConfigError,
      /^a prompt of the test split and generate_max_new_tokens: expected at most 128 tokens/,
      /./,
    ),
  );
});

for (const [changes, message] of [
  [{ doEval: false }, /generateDuringEval: there are no evaluations to answer prompts at/],
  [{ lossType: "sft" }, /generateDuringEval: expected a loss on pairs, received loss_type sft/],
] as const) {
  test(`generate_during_eval with ${JSON.stringify(changes)} is refused`, () => {
    const often = { doEval: true, evalSteps: 2, datasetSplits: ["train", "test"] };
    const input = trajectory({ generateDuringEval: true, ...often, ...changes });
    assert.throws(() => defineConfig(input), { name: "ConfigError", message });
  });
}
