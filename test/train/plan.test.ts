import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import { MemoryError } from "#src/errors.js";
import { readModelShape } from "#src/model/index.js";
import { Device } from "#src/native/index.js";
import { loadExamples } from "#src/train/examples.js";
import { planRun, type RunPlan } from "#src/train/plan.js";
import {
  gqaModel,
  runCli,
  runRecipe,
  temporaryFolder,
  trajectory,
  trajectoryRecipe,
} from "./support.js";

const noAddon = { SIMPER_NATIVE_BINDING: "/nonexistent" };

async function plan(
  changes: Partial<RecipeInput>,
  machine?: number,
  device?: number,
): Promise<RunPlan> {
  const { config } = defineConfig(trajectory(changes));
  const shape = readModelShape(await readConfigFile(gqaModel));
  const options = { modelDir: gqaModel, baseDir: ".", needTest: config.doEval };
  const { train, test } = await loadExamples(config, shape.vocabSize, options);
  return planRun(config, shape, train, test, { machine, device });
}

test("plan needs no addon, writes nothing, and its total is the sum of its lines", async (t) => {
  const cwd = temporaryFolder(t);
  const output = ["--output_dir", path.join(cwd, "run")];
  const text = await runCli(["plan", trajectoryRecipe, ...output], noAddon);
  assert.equal(text.code, 0, text.stderr);
  assert.match(text.stdout, /^steps +10 \(4 per epoch, 3 of warm-up\)$/m);
  assert.match(text.stdout, /^examples per step +4$/m);
  const cells = text.stdout.split("\n\n")[0]!.split("\n").slice(1);
  const megabytes = cells.map((line) => Number(/ ([\d.]+)$/.exec(line)![1]));
  const total = megabytes.pop()!;
  const sum = megabytes.reduce((a, b) => a + b, 0);
  // Each line is rounded to 0.1.
  assert.ok(Math.abs(total - sum) <= 0.05 * (megabytes.length + 1), `${total}, sum ${sum}`);

  const json = await runCli(["plan", trajectoryRecipe, "--json", ...output], noAddon);
  const { totalBytes, lines } = JSON.parse(json.stdout) as RunPlan;
  assert.equal(
    totalBytes,
    lines.reduce((bytes, line) => bytes + line.bytes, 0),
  );
});

test("train needs the addon, and says how to get it", async (t) => {
  const output = ["--output_dir", path.join(temporaryFolder(t), "run")];
  const { code, stderr } = await runCli(["train", trajectoryRecipe, ...output], noAddon);
  assert.equal(code, 1);
  assert.match(stderr, /the native addon is not there/);
  assert.match(stderr, /npx simper-native build/);
});

test("the plan counts the steps that a run takes", async (t) => {
  for (const changes of [
    { maxSteps: -1, numTrainEpochs: 1.5, warmupRatio: 0.3 },
    { maxSteps: 5, warmupSteps: 2 },
  ]) {
    const { totalSteps } = await plan(changes);
    const { steps } = await runRecipe({ ...trajectory(changes), outputDir: temporaryFolder(t) });
    assert.equal(steps.length, totalSteps);
  }
});

test("bf16, gradient checkpointing and smaller micro-batches need less", async () => {
  const activations = ({ lines }: RunPlan) =>
    lines
      .filter((line) => line.lifetime === "activations")
      .reduce((sum, { bytes }) => sum + bytes, 0);
  // All pairs in one step, so that its micro-batches fill what they may hold.
  const step = { perDeviceTrainBatchSize: 14, gradientAccumulationSteps: 1 };
  const full = await plan({ ...step, maxTokensPerMicroBatch: 512 });
  const kept = await plan({ ...step, maxTokensPerMicroBatch: 512, gradientCheckpointing: true });
  const small = await plan({ ...step, maxTokensPerMicroBatch: 128 });
  const half = await plan({ ...step, maxTokensPerMicroBatch: 512, bf16: true });
  assert.ok(activations(kept) < 0.6 * activations(full));
  assert.ok(activations(small) < 0.3 * activations(full));
  assert.ok(activations(half) < 0.6 * activations(full));
  const parameters = 4 * full.parameters;
  const bytes = (of: RunPlan, name: string) =>
    of.lines.find((line) => line.name === name)?.bytes ?? 0;
  const near = (got: number, want: number) =>
    assert.ok(Math.abs(got / want - 1) < 0.01, `${got} ${want}`);
  near(bytes(full, "weights"), parameters);
  near(bytes(full, "Adam moments"), 2 * parameters);
  near(bytes(half, "weights"), parameters / 2);
  near(bytes(half, "master weights"), parameters);
  assert.equal(bytes(full, "master weights"), 0);
});

test("what does not fit shrinks the micro-batch first, then is an error with the largest lines", async () => {
  const open = await plan({ perDeviceTrainBatchSize: 14, gradientAccumulationSteps: 1 });
  const need = open.totalBytes / 0.85;
  const tight = await plan(
    { perDeviceTrainBatchSize: 14, gradientAccumulationSteps: 1 },
    need - 1e6,
  );
  assert.ok(
    tight.limits.tokens < open.limits.tokens,
    `${tight.limits.tokens} ${open.limits.tokens}`,
  );
  await assert.rejects(plan({}, 1e6), (error) => {
    assert.ok(error instanceof MemoryError);
    assert.match(
      error.message,
      /^the run needs 0\.\d+ GB, and 85% of this machine's 0\.00 GB may be used; largest: /,
    );
    assert.match(
      error.hint!,
      /^try gradient_checkpointing: true, bf16: true, a smaller max_length/,
    );
    return true;
  });
});

test("a device with memory of its own has to hold all but the lines of the process", async () => {
  const roomy = await plan({}, 16e9, 8e9);
  const ofProcess = roomy.lines.filter((line) => line.lifetime === "process");
  const own = roomy.totalBytes - ofProcess.reduce((sum, line) => sum + line.bytes, 0);
  // Fits by a hair; a machine of this size would not hold the process.
  const tight = await plan({}, 16e9, own / 0.92 + 1);
  assert.equal(tight.limits.tokens, roomy.limits.tokens);
  await assert.rejects(plan({}, 16e9, 1e5), (error: unknown) => {
    assert.ok(error instanceof MemoryError);
    assert.match(
      error.message,
      /^the run needs 0\.\d+ GB, and 92% of the device's free 0\.00 GB may be used; largest: /,
    );
    assert.doesNotMatch(error.message, /Node\.js/);
    return true;
  });
  await assert.rejects(plan({}, 1e6, 8e9), /85% of this machine's 0\.00 GB may be used.*Node\.js/);
});

test("memory that is gone when it is taken: the error names the plan's largest lines", async (t) => {
  t.mock.method(Device.prototype, "arena", () => {
    throw new MemoryError("cannot allocate 9 bytes on the cuda device: 5 of 8 are free");
  });
  const outputDir = path.join(temporaryFolder(t), "run");
  await assert.rejects(runRecipe({ ...trajectory({}), outputDir }), (error: unknown) => {
    assert.ok(error instanceof MemoryError);
    assert.match(
      error.message,
      /^cannot allocate 9 bytes on the cuda device: 5 of 8 are free; largest of the plan: .+ 0\.\d+ GB, /,
    );
    assert.equal(error.hint, "try a smaller max_tokens_per_micro_batch");
    return true;
  });
});
