import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { defineConfig } from "#src/config/load.js";
import { ConfigError } from "#src/errors.js";
import { generate } from "#src/inference/generate.js";
import { readModel } from "#src/inference/model.js";
import { score } from "#src/inference/score.js";
import { readModelShape } from "#src/model/index.js";
import { elementCount } from "#src/native/index.js";
import { loadExamples } from "#src/train/examples.js";
import { planRun } from "#src/train/plan.js";
import { collect } from "../inference/support.js";
import { fixture } from "../support/paths.js";
import { readTensors, runCli, runRecipe, temporaryFolder, trajectory } from "../train/support.js";
import { makeTinyModel } from "./tiny.js";

const families = ["llama2", "llama31-tied", "mistral", "qwen2", "qwen3", "smollm2"] as const;
const modelOf = (name: string) => fixture("model", "families", name);
const readFields = (dir: string) =>
  JSON.parse(readFileSync(path.join(dir, "config.json"), "utf8")) as Record<string, unknown>;

/** The recipe of the trajectory fixture on a family's own pairs. */
const recipe = (name: string, changes: Parameters<typeof trajectory>[0] = {}) =>
  trajectory({
    modelNameOrPath: modelOf(name),
    datasetMixer: { [path.join(modelOf(name), "pairs.jsonl")]: 1 },
    maxSteps: 2,
    ...changes,
  });

/** A copy of a fixture's model with another config. */
function changed(t: TestContext, name: string, change: Record<string, unknown>): string {
  const dir = path.join(temporaryFolder(t), "model");
  mkdirSync(dir);
  cpSync(path.join(modelOf(name), "model.safetensors"), path.join(dir, "model.safetensors"));
  writeFileSync(
    path.join(dir, "config.json"),
    JSON.stringify({ ...readFields(modelOf(name)), ...change }),
  );
  return dir;
}

for (const name of families) {
  test(`${name}: a trained model keeps the family's config, tensor names and shapes`, async (t) => {
    const outputDir = temporaryFolder(t);
    await runRecipe({ ...recipe(name), outputDir });
    const { torch_dtype: _, dtype: __, ...before } = readFields(modelOf(name));
    const { torch_dtype, dtype, ...after } = readFields(outputDir);
    assert.deepEqual(after, before);
    assert.equal(dtype ?? torch_dtype, "float32");
    const shapes = async (dir: string) =>
      [...(await readTensors(dir))].map(([tensor, { shape }]) => [tensor, shape] as const).sort();
    assert.deepEqual(await shapes(outputDir), await shapes(modelOf(name)));
  });

  test(`${name}: every tensor is trained, in bf16 with gradient checkpointing too`, async (t) => {
    const outputDir = temporaryFolder(t);
    const changes = { bf16: true, gradientCheckpointing: true, saveDtype: "float32" } as const;
    const { steps } = await runRecipe({ ...recipe(name, changes), outputDir });
    for (const { loss } of steps) assert.ok(Number.isFinite(loss));
    const before = await readTensors(modelOf(name));
    for (const [tensor, { values }] of await readTensors(outputDir)) {
      assert.notDeepEqual(values, before.get(tensor)!.values, tensor);
    }
  });

  test(`${name}: with the cache each token is the one that scoring the whole text prefers`, async () => {
    const model = await readModel(modelOf(name));
    const ids = [7, 40, 3, 99, 12, 55];
    const [answer] = await collect(generate(model, [ids], { device: "cpu", maxNewTokens: 20 }));
    const before = [...ids, ...answer!.slice(0, -1)];
    const others = Array.from({ length: model.shape.vocabSize }, (_, id) => [...before, id]);
    const scores = await collect(score(model, others, { device: "cpu" }));
    const last = scores.map(({ logps }) => logps.at(-1)!);
    assert.equal(last.indexOf(Math.max(...last)), answer!.at(-1));
  });
}

test("a sliding window changes what is longer than it, and nothing else", async (t) => {
  const means = async (sliding_window: number | null, length: number) => {
    const model = await readModel(changed(t, "mistral", { sliding_window }));
    const ids = Array.from({ length }, (_, i) => (i * 37) % 151);
    const [one] = await collect(score(model, [ids], { device: "cpu" }));
    return one!.logps;
  };
  assert.deepEqual(await means(12, 12), await means(null, 12));
  // Row t predicts token t + 1: the first row that sees less is row 12.
  const windowed = await means(12, 40);
  const full = await means(null, 40);
  assert.deepEqual(windowed.slice(0, 12), full.slice(0, 12));
  for (let row = 12; row < 39; row++) assert.notEqual(windowed[row], full[row], `row ${row}`);
});

test("a sliding window counts through a shared prompt as through one's own", async (t) => {
  const losses = async (prefixSharing: boolean, sliding_window: number | null) => {
    const modelNameOrPath = changed(t, "mistral", { sliding_window });
    const changes = { prefixSharing, modelNameOrPath, maxSteps: 4 };
    const { steps } = await runRecipe({
      ...recipe("mistral", changes),
      outputDir: temporaryFolder(t),
    });
    return steps.map(({ loss }) => loss!);
  };
  const shared = await losses(true, 5);
  const apart = await losses(false, 5);
  const full = await losses(true, null);
  for (const [step, loss] of shared.entries()) {
    assert.ok(Math.abs(loss - apart[step]!) < 1e-5, `step ${step}: ${loss}, ${apart[step]}`);
    assert.ok(Math.abs(loss - full[step]!) > 1e-4, `step ${step}: the window has no effect`);
  }
});

test("the plan lists what norms of query and key heads keep, once with checkpointing", async () => {
  for (const gradientCheckpointing of [false, true]) {
    const { config } = defineConfig(recipe("qwen3", { gradientCheckpointing }));
    const shape = readModelShape(await readConfigFile(modelOf("qwen3")));
    const options = { modelDir: modelOf("qwen3"), baseDir: ".", needTest: false };
    const { train, test } = await loadExamples(config, shape.vocabSize, options);
    const { lines, limits, parameters } = planRun(config, shape, train, test);
    const line = (name: string) => lines.find((one) => one.name === `layers.${name}`)?.shape;
    const { numHeads: H, numKvHeads: K, headDim: D, numLayers } = shape;
    const sets = gradientCheckpointing ? [] : [numLayers];
    assert.deepEqual(line("projected"), [...sets, limits.tokens, (H + 2 * K) * D]);
    assert.deepEqual(line("qkRstd"), [...sets, limits.tokens, H + K]);
    const stored = await readTensors(modelOf("qwen3"));
    const counts = [...stored.values()].map((tensor) => elementCount(tensor.shape));
    assert.equal(
      parameters,
      counts.reduce((a, b) => a + b, 0),
    );
  }
});

test("dynamic rope scaling: longer sequences than max_position_embeddings are refused", async (t) => {
  const folder = temporaryFolder(t);
  const extra = { rope_scaling: { type: "dynamic", factor: 2 }, max_position_embeddings: 30 };
  const dir = await makeTinyModel(path.join(folder, "model"), { extra, tokenizer: false });
  const message =
    /expected at most 30 tokens \(max_position_embeddings\), received \d+: .*"dynamic"/;
  const outputDir = path.join(folder, "run");
  await assert.rejects(
    runRecipe({ ...trajectory({ modelNameOrPath: dir }), outputDir }),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, /^the longest sequence of the run: /);
      assert.match(error.message, message);
      assert.match(error.hint!, /lower max_length/);
      return true;
    },
  );
  const rows = path.join(folder, "rows.jsonl");
  writeFileSync(rows, `${JSON.stringify({ ids: Array(20).fill(1) })}\n`);
  const scored = await runCli(["score", "--model", dir, "--input", rows]);
  assert.equal(scored.code, 0, scored.stderr);
  const words = ["generate", "--model", dir, "--prompts", rows];
  assert.equal((await runCli([...words, "--max_new_tokens", "10"])).code, 0);
  const long = await runCli([...words, "--max_new_tokens", "11"]);
  assert.equal(long.code, 2);
  assert.match(long.stderr, message);
  assert.match(long.stderr, /max_new_tokens/);
});
