import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  checkpointSteps,
  gqaModel,
  gqaPairs,
  outputOf,
  readLines,
  readTensors,
  runCli,
  startCli,
  temporaryFolder,
  trajectoryRecipe,
  weightBytes,
  withoutTimes,
  words,
  writeLines,
} from "./support.js";

const KILLS = 8;
const STEPS = 30;
const settings = {
  model_name_or_path: gqaModel,
  shuffle: true,
  max_steps: STEPS,
  save_strategy: "steps",
  save_steps: 1,
};

/** A train command into `outputDir`; later ones of the same folder go on from what is there. */
function command(outputDir: string, changes: object = {}): string[] {
  const all = { ...settings, resume_from_checkpoint: true, output_dir: outputDir, ...changes };
  return ["train", trajectoryRecipe, ...words(all)];
}

/** The run that nobody disturbed. */
async function undisturbed(t: TestContext) {
  const outputDir = temporaryFolder(t);
  const { code, stderr } = await runCli(command(outputDir, { save_strategy: "no" }));
  assert.equal(code, 0, stderr);
  return { records: withoutTimes(outputOf(outputDir).records), weights: weightBytes(outputDir) };
}

/** Reads every checkpoint in the folder to its last byte. */
async function checkCheckpoints(outputDir: string): Promise<number> {
  const steps = checkpointSteps(outputDir);
  const names = [...(await readTensors(gqaModel)).keys()];
  for (const step of steps) {
    const dir = path.join(outputDir, `checkpoint-${step}`);
    const json = (name: string) => JSON.parse(readFileSync(path.join(dir, name), "utf8"));
    assert.equal(json("run_state.json").step, step);
    assert.equal(json("trainer_state.json").global_step, step);
    assert.equal(json("config.json").dtype, "float32");
    assert.deepEqual([...(await readTensors(dir)).keys()].sort(), [...names].sort());
    const optimizer = await readTensors(path.join(dir, "optimizer.safetensors"));
    const moments = names.flatMap((name) => [`exp_avg.${name}`, `exp_avg_sq.${name}`]);
    assert.deepEqual([...optimizer.keys()].sort(), moments.sort());
  }
  return steps.at(-1) ?? 0;
}

test("killed again and again, a run ends as if nothing had happened", async (t) => {
  const seed = Number(process.env.SIMPER_TEST_SEED ?? Date.now() % 2 ** 31);
  t.diagnostic(`SIMPER_TEST_SEED=${seed}`);
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const expected = await undisturbed(t);
  const outputDir = path.join(temporaryFolder(t), "run");
  const reached: number[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    const run = startCli(command(outputDir));
    // Some while they load, most between and inside the saves that follow every step.
    if (kill % 4 !== 3) await run.printed(/^step \d+/m);
    await sleep(random() * (kill % 4 === 3 ? 600 : 250));
    run.child.kill("SIGKILL");
    const { signal } = await run.ended;
    reached.push(await checkCheckpoints(outputDir));
    if (signal === null) break; // finished before the kill came
  }
  t.diagnostic(`newest checkpoint after each kill: ${reached.join(", ")}`);
  assert.deepEqual(
    reached,
    [...reached].sort((a, b) => a - b),
    "no kill takes a checkpoint away",
  );
  const { code, stderr } = await runCli(command(outputDir));
  assert.equal(code, 0, stderr);
  await checkCheckpoints(outputDir);
  assert.deepEqual(withoutTimes(outputOf(outputDir).records), expected.records);
  assert.ok(weightBytes(outputDir).equals(expected.weights));
  const left = readdirSync(outputDir).filter((name) => name.startsWith(".tmp-"));
  assert.deepEqual(left, [], "what the kills left behind is removed");
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  test(`${signal} saves a checkpoint and exits 130; resuming ends as if nothing had happened`, async (t) => {
    const expected = await undisturbed(t);
    const outputDir = path.join(temporaryFolder(t), "run");
    const run = startCli(command(outputDir, { save_strategy: "no" }));
    await run.printed(/^step 2\//m);
    run.child.kill(signal);
    const { code } = await run.ended;
    assert.equal(code, 130, run.output.stderr);
    assert.match(run.output.stderr, /stopping after this step and saving a checkpoint/);
    assert.match(run.output.stderr, /interrupted; go on with: --resume_from_checkpoint true/);
    const stopped = await checkCheckpoints(outputDir);
    assert.ok(stopped >= 2 && stopped < STEPS, `stopped after step ${stopped}`);
    assert.ok(!existsSync(path.join(outputDir, "model.safetensors")));
    const { code: end, stderr } = await runCli(command(outputDir, { save_strategy: "no" }));
    assert.equal(end, 0, stderr);
    assert.deepEqual(withoutTimes(outputOf(outputDir).records), expected.records);
    assert.ok(weightBytes(outputDir).equals(expected.weights));
  });
}

test("the second SIGINT quits at once, in the middle of a long step", async (t) => {
  const folder = temporaryFolder(t);
  const outputDir = path.join(folder, "run");
  const rows = readLines<object>(gqaPairs);
  // 5,600 pairs in one optimizer step: it would take minutes.
  const many = Array.from({ length: 400 }, () => rows).flat();
  const data = writeLines(path.join(folder, "many.jsonl"), many);
  const run = startCli([
    ...command(outputDir, {
      per_device_train_batch_size: many.length,
      gradient_accumulation_steps: 1,
    }),
    `--dataset_mixer={"${data}": 1}`,
  ]);
  await run.printed(/\d+ steps; output in/);
  await sleep(1500);
  run.child.kill("SIGINT");
  await run.printed(/once more quits at once/);
  const second = performance.now();
  run.child.kill("SIGINT");
  const { code } = await run.ended;
  const seconds = (performance.now() - second) / 1e3;
  assert.equal(code, 130, run.output.stderr);
  assert.ok(seconds < 5, `it took ${seconds.toFixed(1)} s to quit`);
  assert.deepEqual(checkpointSteps(outputDir), []);
  assert.ok(!existsSync(path.join(outputDir, "metrics.jsonl")), "not one step was done");
});
