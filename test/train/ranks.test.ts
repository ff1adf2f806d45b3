import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import type { ProfileRecord } from "#src/report/index.js";
import { makeTinyModel } from "../model/tiny.js";
import { root } from "../support/paths.js";
import { noMpi, type RanksResult, runRanks } from "../support/ranks.js";
import type { RankReport, RankTask } from "./rank.js";
import {
  checkpointSteps,
  gqaPairs,
  type MetricRecord,
  outputOf,
  type PairRow,
  readLines,
  readTensors,
  runCli,
  runRecipe,
  splitFolder,
  temporaryFolder,
  trajectory,
  trajectoryRecipe,
  withoutTimes,
  writeLines,
} from "./support.js";

// Several processes share a run: mpirun starts them, and what they leave behind is held against the same run in one
// process, in the same order of examples. Sums of gradients have another order, nothing else differs.

const skip = noMpi;
const program = path.join(root, "dist-test", "train", "rank.js");
const cli = path.join(root, "dist", "cli.js");

type Input = RecipeInput & { outputDir: string };

/** Twelve pairs a step of 14: the last of an epoch is ragged, with fewer pairs than some worlds have ranks. */
async function recipe(folder: string, name: string, changes: Partial<RecipeInput>): Promise<Input> {
  const data = await splitFolder(folder, 5);
  return {
    ...trajectory({
      datasetMixer: { [data]: 1 },
      maxSteps: 6,
      // Micro-batches of two or three pairs, so that ranks have several, and not all of them something to do.
      maxTokensPerMicroBatch: 150,
      doEval: true,
      evalSteps: 2,
      evalOnStart: true,
      ...changes,
    }),
    outputDir: path.join(folder, name),
  };
}

/** Pairs of a step by the recipe's keys, for 12 in all. */
const share = (ranks: number) => ({
  perDeviceTrainBatchSize: 3,
  gradientAccumulationSteps: 4 / ranks,
});

/** What became of a task, every rank having told of it. */
type Told = Omit<RanksResult<RankReport>, "reports"> & { readonly reports: readonly RankReport[] };

async function runTask(t: TestContext, ranks: number, task: RankTask): Promise<Told> {
  const file = path.join(temporaryFolder(t), "task.json");
  writeFileSync(file, JSON.stringify(task));
  const result = await runRanks<RankReport>(ranks, program, [file]);
  for (const [rank, report] of result.reports.entries())
    assert.ok(report, `rank ${rank} says nothing: ${result.stderr}`);
  return result as Told;
}

/** Counts agree exactly, measured values as closely as f32 sums in another order do. */
function assertAlike(records: readonly object[], expected: readonly object[]): void {
  const [found, wanted] = [records, expected].map((list) => withoutTimes(list as MetricRecord[]));
  assert.equal(found!.length, wanted!.length);
  const exact = new Set(["step", "epoch", "learning_rate", "num_tokens", "num_computed_tokens"]);
  for (const [i, record] of wanted!.entries()) {
    const other = found![i] as Record<string, number>;
    assert.deepEqual(Object.keys(other), Object.keys(record));
    for (const [name, value] of Object.entries(record as Record<string, number>)) {
      const tolerance = exact.has(name) ? 0 : 1e-4 * Math.abs(value) + 1e-6;
      const difference = Math.abs(other[name]! - value);
      assert.ok(difference <= tolerance, `record ${i}: ${name} ${other[name]}, expected ${value}`);
    }
  }
}

for (const [ranks, zeroStage, changes] of [
  [2, 1, { sftWeight: 0.3 }],
  [4, 2, {}],
] as const) {
  const name = `${ranks} ranks, zero_stage ${zeroStage}${"sftWeight" in changes ? ", sft_weight" : ""}`;
  test(`the records, evaluations and results of one process: ${name}`, { skip }, async (t) => {
    const folder = temporaryFolder(t);
    const alone = await runRecipe(await recipe(folder, "one", { ...changes, ...share(1) }), {
      threads: 1,
    });
    const input = await recipe(folder, "many", { ...changes, ...share(ranks), zeroStage });
    const { code, reports, stderr } = await runTask(t, ranks, { recipe: input });
    assert.equal(code, 0, stderr);
    assertAlike(outputOf(input.outputDir).records, alone.records);
    for (const { steps, evals, summary } of reports) {
      assertAlike(steps, alone.steps);
      assertAlike(evals, alone.evals);
      assert.equal(summary!.step, 6);
    }
    // The same numbers on every rank, not only close ones: decisions rest on them.
    for (const { steps, evals } of reports.slice(1)) {
      assert.deepEqual(
        withoutTimes(steps as unknown as MetricRecord[]),
        withoutTimes(reports[0]!.steps as unknown as MetricRecord[]),
      );
      assert.deepEqual(evals, reports[0]!.evals);
    }
    // A ragged step of two pairs for up to four ranks was among them.
    assert.equal(alone.steps.filter(({ epoch }) => Number.isInteger(epoch)).length, 3);

    assert.deepEqual(
      reports.map(({ reporterCalls }) => reporterCalls > 0),
      reports.map((_, rank) => rank === 0),
      "rank 0 alone reports",
    );
    const final = await readTensors(input.outputDir);
    for (const [tensor, { values }] of await readTensors(alone.outputDir)) {
      const other = final.get(tensor)!.values;
      values.forEach((value, i) => {
        // Adam divides by the root of the second moment: where gradients are near zero, rounding shows.
        const difference = Math.abs(other[i]! - value);
        assert.ok(difference <= 2e-4 + 1e-3 * Math.abs(value), `${tensor}[${i}]: ${other[i]}`);
      });
    }
    assert.deepEqual(readdirSync(input.outputDir).sort(), readdirSync(alone.outputDir).sort());
    const results = (dir: string) =>
      JSON.parse(readFileSync(path.join(dir, "all_results.json"), "utf8")) as MetricRecord;
    const rates = /_per_second|runtime/;
    const measured = (dir: string) =>
      Object.fromEntries(Object.entries(results(dir)).filter(([key]) => !rates.test(key)));
    assertAlike([measured(input.outputDir)], [measured(alone.outputDir)]);
  });
}

test("rates of a step and of a run count the pairs and tokens of all ranks", {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, "run", share(2));
  const { reports } = await runTask(t, 2, { recipe: input });
  const [{ steps, summary }] = reports as [RankReport];
  for (const [i, step] of steps.entries()) {
    const pairs = i % 2 === 0 ? 12 : 2;
    assert.ok(Math.abs(step.pairs_per_second * step.step_time - pairs) < 1e-6);
    assert.ok(Math.abs(step.tokens_per_second * step.step_time - step.num_tokens) < 1e-6);
  }
  const { train_samples_per_second: rate, train_runtime: seconds } = summary!.train!;
  assert.ok(Math.abs(rate! * seconds! - 3 * (12 + 2)) < 1e-6);
});

test("one rank that is asked to stop stops all after the same step", { skip }, async (t) => {
  const folder = temporaryFolder(t);
  const changes = { ...share(2), maxSteps: 400, doEval: false };
  const input = await recipe(folder, "run", changes);
  const task = { recipe: input, stop: { rank: 1, step: 3 } };
  const { code, reports, stderr } = await runTask(t, 2, task);
  assert.equal(code, 0, stderr);
  const [first, second] = reports.map(({ summary }) => summary!);
  assert.ok(first!.interrupted && second!.interrupted);
  assert.equal(first!.step, second!.step);
  // It was asked when step 3 was reported, while step 4 was enqueued; the others knew with that step or the next.
  assert.ok(first!.step >= 4 && first!.step <= 6, `stopped after step ${first!.step}`);
  assert.deepEqual(checkpointSteps(input.outputDir), [first!.step]);
  assert.deepEqual(
    outputOf(input.outputDir).steps.map(({ step }) => step),
    Array.from({ length: first!.step }, (_, i) => i + 1),
  );
});

test("a rank that is asked to stop in an evaluation stops all between its rounds", {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const data = path.join(folder, "data");
  const input = await recipe(folder, "run", { ...share(2), evalOnStart: false });
  const rows = readLines<PairRow>(gqaPairs);
  // 280 pairs are five rounds of 64.
  writeLines(path.join(data, "test.jsonl"), Array.from({ length: 20 }, () => rows).flat());
  const { code, reports, stderr } = await runTask(t, 2, {
    recipe: input,
    stop: { rank: 1, step: 2 },
  });
  assert.equal(code, 0, stderr);
  for (const { summary, evals } of reports) {
    assert.ok(summary!.interrupted);
    assert.equal(summary!.step, 2);
    assert.deepEqual(evals, []);
  }
  assert.deepEqual(checkpointSteps(input.outputDir), [2]);
});

test("an error of one rank ends all, and they say whose it was", { skip }, async (t) => {
  const input = await recipe(temporaryFolder(t), "run", { ...share(2), maxSteps: 400 });
  const { code, reports } = await runTask(t, 2, { recipe: input, fail: { rank: 1, step: 3 } });
  assert.equal(code, 1);
  assert.deepEqual(
    reports.map(({ error }) => error!.name),
    ["CommError", "Error"],
  );
  assert.match(reports[0]!.error!.message, /rank 1.*enough/);
  assert.equal(
    reports.filter(({ error }) => !error!.reported).length,
    1,
    "one of them tells the user",
  );
  assert.deepEqual(checkpointSteps(input.outputDir), []);
});

test("what the ranks are about to run is compared first", { skip }, async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, "run", share(2));
  const other = path.join(folder, "other.jsonl");
  writeLines(other, readLines<PairRow>(gqaPairs).slice(1));
  const changes = { learningRate: 0.5, datasetMixer: { [other]: 1 }, doEval: false };
  const { code, reports } = await runTask(t, 3, {
    recipe: { ...input, doEval: false, datasetMixer: { [gqaPairs]: 1 } },
    other: { rank: 1, changes },
  });
  assert.equal(code, 1);
  for (const [rank, { error, steps }] of reports.entries()) {
    assert.equal(error!.name, "CommError");
    assert.match(error!.message, /^the ranks are about to run different things: /);
    assert.match(error!.message, /learning_rate: 0\.002 on ranks 0, 2, 0\.5 on rank 1/);
    assert.match(
      error!.message,
      /training examples: "14 examples, \w+" on ranks 0, 2, "13 examples/,
    );
    assert.doesNotMatch(error!.message, /seed/);
    assert.equal(error!.reported, rank > 0);
    assert.deepEqual(steps, []);
  }
});

test("an error in the data that all ranks find is printed once", { skip }, async (t) => {
  const folder = temporaryFolder(t);
  const data = writeLines(path.join(folder, "bad.jsonl"), [{ chosen: 3 }]);
  const file = path.join(folder, "recipe.yaml");
  writeFileSync(
    file,
    JSON.stringify({
      model_name_or_path: path.join(root, "test/fixtures/model/llama-gqa/model"),
      dataset_mixer: { [data]: 1 },
      loss_type: "SimPER",
      max_length: 128,
      max_prompt_length: 64,
      do_eval: false,
      output_dir: path.join(folder, "run"),
    }),
  );
  const { code, stderr } = await runRanks(3, cli, ["train", file, "--device", "cpu"]);
  assert.equal(code, 2);
  const lines = stderr.split("\n").filter((line) => line.startsWith("simper-native:"));
  assert.equal(lines.length, 1, stderr);
  assert.match(lines[0]!, /bad\.jsonl:1: chosen: expected a string or a list/);
});

test("an error of one rank's preparation is told by that rank", { skip }, async (t) => {
  const folder = temporaryFolder(t);
  const bad = writeLines(path.join(folder, "bad.jsonl"), [{ chosen: 3 }]);
  const recipeOf = await recipe(folder, "run", share(2));
  const { code, reports } = await runTask(t, 2, {
    recipe: recipeOf,
    other: { rank: 1, changes: { datasetMixer: { [bad]: 1 }, doEval: false } },
  });
  assert.equal(code, 1);
  assert.deepEqual(
    reports.map(({ error }) => [error!.name, error!.reported]),
    [
      ["CommError", true],
      ["DataError", false],
    ],
  );
  assert.match(reports[0]!.error!.message, /^rank 1 cannot start: .*bad\.jsonl:1: chosen/);
});

test("on_nonfinite: skip leaves out the same steps as one process, on every rank", {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  // Token 600 is in pair 5 alone, and its embedding is NaN.
  const model = await makeTinyModel(path.join(folder, "model"), {
    tokenizer: false,
    config: { tie_word_embeddings: false },
    change: (weights) => {
      weights.get("model.embed_tokens.weight")!.fill(Number.NaN, 600 * 32, 601 * 32);
    },
  });
  const input = await recipe(folder, "many", {
    modelNameOrPath: model,
    doEval: false,
    onNonfinite: "skip",
    perDeviceTrainBatchSize: 2,
    gradientAccumulationSteps: 1,
    maxSteps: 7,
  });
  const rows = readLines<PairRow>(gqaPairs);
  rows[5]!.chosen_input_ids[0] = 600;
  rows[5]!.chosen_labels[0] = -100;
  writeLines(path.join(folder, "data", "train.jsonl"), rows);
  const one = { ...input, gradientAccumulationSteps: 2, outputDir: path.join(folder, "one") };
  const alone = await runRecipe(one, { threads: 1 });
  const { code, reports, stderr } = await runTask(t, 2, { recipe: input });
  assert.equal(code, 0, stderr);
  const skipped = alone.records.filter((record) => record.skipped).map(({ step }) => step);
  assert.deepEqual(skipped, [2, 6]);
  const finite = (records: readonly object[]) =>
    (records as MetricRecord[]).filter((record) => !record.skipped);
  for (const { steps } of reports) {
    const records = steps as unknown as MetricRecord[];
    assert.deepEqual(
      records.filter((record) => record.skipped).map(({ step }) => step),
      skipped,
    );
    assertAlike(finite(records), finite(alone.records));
  }
  const told = reports.map(({ notices }) => notices.filter((text) => /skipped/.test(text)).length);
  assert.deepEqual(told, [2, 0]);
});

test("on_nonfinite: stop ends all ranks, and one tells which op and rank", { skip }, async (t) => {
  const folder = temporaryFolder(t);
  const model = await makeTinyModel(path.join(folder, "model"), {
    tokenizer: false,
    change: (weights) => {
      weights.get("model.layers.1.mlp.up_proj.weight")![7] = Number.NaN;
    },
  });
  const input = await recipe(folder, "run", {
    modelNameOrPath: model,
    doEval: false,
    ...share(2),
    zeroStage: 3,
  });
  const { code, reports } = await runTask(t, 2, { recipe: input });
  assert.equal(code, 1);
  const telling = reports.filter(({ error }) => !error!.reported);
  assert.equal(telling.length, 1);
  assert.match(
    telling[0]!.error!.message,
    /^step 1: loss NaN.*first in rank 0, layer 1, forward: matmul wrote NaN to gateUp/,
  );
  assert.deepEqual(checkpointSteps(input.outputDir), []);
});

test("the best checkpoint becomes the result, and rank 0 writes the answers of all", {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const model = await makeTinyModel(path.join(folder, "model"), {});
  const changes = {
    modelNameOrPath: model,
    // The highest loss counts as best, so that it is not the last.
    metricForBestModel: "loss",
    greaterIsBetter: true,
    maxSteps: 10,
    saveStrategy: "steps",
    saveSteps: 2,
    loadBestModelAtEnd: true,
    generateDuringEval: true,
    generatePrompts: 3,
    generateMaxNewTokens: 5,
    evalOnStart: false,
    zeroStage: 3,
  } as const;
  const input = await recipe(folder, "many", { ...changes, ...share(2) });
  const { code, reports, stderr } = await runTask(t, 2, { recipe: input });
  assert.equal(code, 0, stderr);
  const { evals } = reports[0]!;
  const best = evals.reduce((a, b) => (b.eval_loss > a.eval_loss ? b : a));
  assert.ok(best.step < 10, `the best step is ${best.step}: nothing to choose`);
  const result = await readTensors(input.outputDir);
  const chosen = await readTensors(path.join(input.outputDir, `checkpoint-${best.step}`));
  const last = await readTensors(path.join(input.outputDir, "checkpoint-10"));
  assert.deepEqual(result, chosen);
  assert.notDeepEqual(result, last);
  assert.ok(reports[0]!.notices.some((text) => text.includes(`checkpoint-${best.step}, not the`)));
  const samples = readLines<{ step: number }>(path.join(input.outputDir, "samples.jsonl"));
  assert.deepEqual(
    samples.map(({ step }) => step),
    evals.flatMap(({ step }) => [step, step, step]),
  );
});

test("tasks of srun that it did not connect are told how, once", async (t) => {
  const outputDir = path.join(temporaryFolder(t), "out");
  const words = ["train", "--device", "cpu", trajectoryRecipe, "--output_dir", outputDir];
  const env = { SLURM_STEP_NUM_TASKS: "2", SLURM_STEP_TASKS_PER_NODE: "2", PMIX_RANK: undefined };
  const tasks = await Promise.all(
    ["0", "1"].map((rank) => runCli(words, { ...env, SLURM_PROCID: rank, SLURM_LOCALID: rank })),
  );
  assert.deepEqual(
    tasks.map(({ code }) => code),
    [2, 2],
  );
  assert.equal(
    tasks[0]!.stderr,
    "simper-native: srun started 2 ranks without MPI\n" +
      "  srun --mpi=pmix; `srun --mpi=list` shows what this Slurm can do\n",
  );
  assert.equal(tasks[1]!.stderr, "");
});

test("rank 0 profiles its steps while the others go on", { skip }, async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, "run", share(2));
  const task = { recipe: input, profile: { first: 2, last: 4 } };
  const { code, stderr } = await runTask(t, 2, task);
  assert.equal(code, 0, stderr);
  const file = path.join(input.outputDir, "profile.json");
  assert.ok(existsSync(file));
  const record = JSON.parse(readFileSync(file, "utf8")) as ProfileRecord;
  assert.deepEqual([record.first_step, record.last_step], [2, 4]);
});
