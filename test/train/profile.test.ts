import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { type ProfileRecord, profileRecord, profileTable } from "#src/report/index.js";
import { profileRange } from "#src/train/profiler.js";
import {
  gqaPairs,
  runCli,
  runRecipe,
  splitFolder,
  temporaryFolder,
  trajectory,
  trajectoryRecipe,
  weightBytes,
  words,
} from "./support.js";

/** A run with a profile, and the profile as the reporter got it. */
async function profiled(
  options: Parameters<typeof runRecipe>[1],
  input: Parameters<typeof runRecipe>[0],
) {
  const records: ProfileRecord[] = [];
  const order: string[] = [];
  const watch = {
    ...options?.watch,
    profile: (record: ProfileRecord) => {
      order.push("profile");
      records.push(record);
    },
    step: ({ step }: { step: number }) => order.push(`step ${step}`),
  };
  const run = await runRecipe(input, { ...options, watch });
  return { ...run, records, order };
}

const calls = ({ ops }: ProfileRecord) =>
  Object.fromEntries(ops.map(({ op, calls_per_step }) => [op, calls_per_step]));
const fileIn = (folder: string) => path.join(folder, "profile.json");

test("profile: the calls of exactly these steps, though evaluations and checkpoints lie between them", async (t) => {
  const folder = temporaryFolder(t);
  const data = await splitFolder(folder, 4);
  const busy = { doEval: true, evalSteps: 1, saveStrategy: "steps", saveSteps: 1 } as const;
  const input = trajectory({ datasetMixer: { [data]: 1 }, maxSteps: 6 });
  const outputs = ["plain", "quiet", "busy"].map((name) => path.join(folder, name));
  await runRecipe({ ...input, outputDir: outputs[0]! });
  const profile = { first: 2, last: 4 };
  const quiet = await profiled({ profile }, { ...input, outputDir: outputs[1]! });
  const among = await profiled({ profile }, { ...input, ...busy, outputDir: outputs[2]! });
  const [record] = quiet.records;
  assert.deepEqual([record!.first_step, record!.last_step, record!.steps], [2, 4, 3]);
  // Three layers and the edge, each updated in two parts (weights decay, norms do not); what a step reads are
  // means, losses and the norm.
  assert.equal(calls(record!).adamw, 8);
  assert.equal(calls(record!).read, 3);
  assert.equal(calls(record!).clip_factor, 1);
  assert.deepEqual(calls(among.records[0]!), calls(record!));
  // Every step is reported in its turn, the profile after its last.
  assert.equal(quiet.order.join(), "step 1,step 2,step 3,step 4,profile,step 5,step 6");
  assert.deepEqual(JSON.parse(readFileSync(fileIn(outputs[1]!), "utf8")), record);
  assert.ok(!existsSync(fileIn(outputs[0]!)));
  // Looking changes nothing.
  for (const output of outputs.slice(1))
    assert.deepEqual(weightBytes(output), weightBytes(outputs[0]!));
});

test("profile: ops by time, and with what lies outside them they make up the step", async (t) => {
  const outputDir = temporaryFolder(t);
  const input = trajectory({ outputDir, maxSteps: 5 });
  const { records, steps } = await profiled({ profile: true }, { ...input, outputDir });
  const { ops, outside_ops, step_time, first_step, last_step } = records[0]!;
  assert.deepEqual([first_step, last_step], [2, 5]);
  const sorted = ops.map(({ ms_per_step }) => ms_per_step);
  assert.deepEqual(
    sorted,
    sorted.toSorted((a, b) => b - a),
  );
  const total = ops.reduce((sum, { share }) => sum + share, outside_ops.share);
  assert.ok(Math.abs(total - 1) < 1e-9, `shares sum to ${total}`);
  const ms = sorted.reduce((sum, time) => sum + time, outside_ops.ms_per_step);
  assert.ok(Math.abs(ms - 1e3 * step_time) < 1e-6);
  // What the steps themselves measured, give or take what drains the stream at both ends.
  const measured = steps.slice(1).reduce((sum, { step_time }) => sum + step_time!, 0) / 4;
  assert.ok(step_time > measured / 3 && step_time < 3 * measured, `${step_time}, ${measured}`);
});

test("profile: a resumed run goes on counting steps, and leaves out its own first", async (t) => {
  const folder = temporaryFolder(t);
  const input = trajectory({ maxSteps: 6, saveStrategy: "steps", saveSteps: 3 });
  const outputDir = path.join(folder, "run");
  const controller = new AbortController();
  const step = () => controller.abort();
  await runRecipe({ ...input, outputDir }, { watch: { step }, signal: controller.signal });
  const resume = { ...input, outputDir, resumeFromCheckpoint: true };
  const { summary, records } = await profiled({ profile: true }, resume);
  assert.equal(summary.step, 6);
  // The first step's record comes while the second runs, after which the run stops.
  assert.deepEqual([records[0]!.first_step, records[0]!.last_step], [4, 6]);
});

test("profile: a run that is stopped shows the steps it got to, or says that there are none", async (t) => {
  const folder = temporaryFolder(t);
  const stopped = async (name: string, first: number) => {
    const controller = new AbortController();
    const outputDir = path.join(folder, name);
    const records: ProfileRecord[] = [];
    const watch = {
      step: ({ step }: { step: number }) => step === 2 && controller.abort(),
      profile: (record: ProfileRecord) => records.push(record),
    };
    const { notices } = await runRecipe(
      { ...trajectory({}), outputDir },
      { watch, signal: controller.signal, profile: { first, last: 9 } },
    );
    return { records, notices, outputDir };
  };
  const some = await stopped("some", 2);
  assert.deepEqual([some.records[0]!.first_step, some.records[0]!.last_step], [2, 3]);
  assert.equal(calls(some.records[0]!).adamw, 8);
  const none = await stopped("none", 8);
  assert.deepEqual(none.records, []);
  assert.ok(!existsSync(fileIn(none.outputDir)));
  assert.ok(none.notices.includes("no profile: the run ended before its steps"));
});

test("profile: steps that the run does not have are refused", async (t) => {
  assert.deepEqual(profileRange(true, 0, 10), { first: 2, last: 10 });
  assert.deepEqual(profileRange({ first: 4, last: 4 }, 3, 4), { first: 4, last: 4 });
  for (const [request, resumed, total, message] of [
    [
      true,
      0,
      1,
      /^profile: it leaves out the first step of a run, and this run has one step left$/,
    ],
    [true, 4, 4, /and this run has no step left$/],
    [
      { first: 2, last: 5 },
      0,
      4,
      /^profile: expected steps from 1 to 4, those of this run, received 2:5$/,
    ],
    [
      { first: 2, last: 5 },
      3,
      9,
      /from 4 to 9, those of this run \(it goes on from the checkpoint of step 3\), received 2:5$/,
    ],
  ] as const) {
    assert.throws(() => profileRange(request, resumed, total), { name: "ConfigError", message });
  }
  const outputDir = path.join(temporaryFolder(t), "none");
  for (const [first, last] of [
    [3, 2],
    [0, 2],
    [1.5, 2],
  ] as const) {
    await assert.rejects(
      runRecipe({ ...trajectory({}), outputDir }, { profile: { first, last } }),
      {
        name: "ConfigError",
        message: `profile: expected steps first:last with 1 <= first <= last, received ${first}:${last}`,
      },
    );
  }
  assert.ok(!existsSync(outputDir));
});

test("train --profile prints the table and writes profile.json", async (t) => {
  const output_dir = temporaryFolder(t);
  const recipe = ["train", trajectoryRecipe, ...words({ output_dir, max_steps: 4 })];
  const data = ["--dataset_mixer", JSON.stringify({ [gqaPairs]: 1 })];
  const ended = await runCli([...recipe, ...data, "--profile", "2:3"]);
  assert.equal(ended.code, 0, ended.stderr);
  assert.match(
    ended.stderr,
    /\nprofile of steps 2-3: \d+\.\d\d ms per step\nop +calls\/step +ms\/step +% of step\n(\w+ +\d+\.\d +\d+\.\d\d +\d+\.\d\n)+outside ops +\d+\.\d\d +\d+\.\d\n/,
  );
  const record = JSON.parse(readFileSync(fileIn(output_dir), "utf8")) as ProfileRecord;
  assert.equal(record.steps, 2);
  assert.ok(ended.stderr.includes(profileTable(record)));
});

test("train --profile: what is no range of this run's steps ends with 2", async (t) => {
  const output_dir = path.join(temporaryFolder(t), "none");
  for (const range of ["3:2", "0:2", "2", "a:b", "2:3:4", "1.5:2"]) {
    const { code, stderr } = await runCli(["train", trajectoryRecipe, "--profile", range]);
    assert.equal(code, 2, range);
    assert.match(
      stderr,
      /^simper-native: option '--profile \[first:last\]' argument '.*' is invalid\. expected steps first:last with 1 <= first <= last, such as 2:10; put the recipe before this option\.\n$/,
    );
  }
  const recipe = ["train", trajectoryRecipe, ...words({ output_dir, max_steps: 4 })];
  const beyond = await runCli([...recipe, "--profile", "2:5"]);
  assert.equal(beyond.code, 2, beyond.stderr);
  assert.match(
    beyond.stderr,
    /profile: expected steps from 1 to 4, those of this run, received 2:5/,
  );
  assert.ok(!existsSync(path.join(output_dir, "model.safetensors")));
});

test("profileTable: columns line up, the largest op first, what lies outside ops last", () => {
  const totals = [
    { op: "fill", calls: 3, seconds: 0.001 },
    { op: "matmul_add", calls: 63, seconds: 0.3 },
  ];
  assert.equal(
    profileTable(profileRecord(2, 4, 0.304, totals)),
    [
      "profile of steps 2-4: 101.33 ms per step",
      "op           calls/step  ms/step  % of step",
      "matmul_add         21.0   100.00       98.7",
      "fill                1.0     0.33        0.3",
      "outside ops                 1.00        1.0",
    ].join("\n"),
  );
  assert.match(profileTable(profileRecord(7, 7, 1, totals)), /^profile of step 7: 1000\.00 ms/);
});
