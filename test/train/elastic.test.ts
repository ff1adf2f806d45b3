import assert from "node:assert/strict";
import { cpSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { openPieces } from "#src/checkpoint/piece-source.js";
import type { RecipeInput } from "#src/config/schema.js";
import type { ZeroStage } from "#src/parallel/layout.js";
import { leftovers } from "../errors/support.js";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import type { Job, JobReport } from "./elastic-rank.js";
import { saveAgain } from "./elastic-save.js";
import type { RankReport, RankTask } from "./rank.js";
import {
  checkpointSteps,
  type MetricRecord,
  outputOf,
  readTensors,
  runRecipe,
  splitFolder,
  temporaryFolder,
  trajectory,
  weightBytes,
  withoutTimes,
} from "./support.js";

// Checkpoints that some number of ranks wrote, read by any other. mpirun starts the ranks.

const skip = noMpi;
const program = (name: string) => path.join(root, "dist-test", "train", name);
const MODEL_LIMIT = 90_000; // bytes of a file: the fixture's 371 KB become five

type Input = RecipeInput & { outputDir: string };

async function runJobs(t: TestContext, ranks: number, jobs: readonly Job[]) {
  const file = path.join(temporaryFolder(t), "jobs.json");
  writeFileSync(file, JSON.stringify({ jobs }));
  return runRanks<JobReport[]>(ranks, program("elastic-rank.js"), [file]);
}

/** Every tensor of a checkpoint's optimizer, whoever wrote it. */
async function optimizerOf(dir: string): Promise<Map<string, Buffer>> {
  const source = await openPieces(dir, "optimizer");
  try {
    const tensors = new Map<string, Buffer>();
    for (const name of source.names().sort()) {
      const { shape } = source.info(name);
      const bytes = Buffer.alloc(shape.reduce((product, extent) => product * extent, 4));
      await source.read(name, 0, bytes.length, bytes);
      tensors.set(name, bytes);
    }
    return tensors;
  } finally {
    await source.close();
  }
}

function textOf(dir: string, name: string): string {
  return readFileSync(path.join(dir, name), "utf8");
}

// Numbers of ranks, and the stages that they write in, one after another.
const chains: Record<"f32" | "bf16", readonly (readonly [number, ...ZeroStage[]])[]> = {
  f32: [
    [2, 0, 1, 2, 3],
    [3, 3, 1],
    [4, 2],
    [2, 1],
  ],
  bf16: [
    [3, 0, 2],
    [2, 3],
    [4, 1],
  ],
};

for (const bf16 of [false, true]) {
  const chain = chains[bf16 ? "bf16" : "f32"];
  test(`a checkpoint that any number of ranks reads and writes again, in any stage, keeps every bit (bf16: ${bf16})`, {
    skip,
  }, async (t) => {
    const folder = temporaryFolder(t);
    const recipe: Input = {
      ...trajectory({ bf16, maxSteps: 3, saveStrategy: "steps", saveSteps: 3 }),
      outputDir: path.join(folder, "one"),
    };
    await runRecipe(recipe);
    const first = path.join(folder, "one", "checkpoint-3");
    const wanted = await optimizerOf(first);
    assert.equal(
      wanted.size,
      30 * (bf16 ? 3 : 2),
      "moments, and masters where weights are rounded",
    );
    // The same model in several files, as one process writes it.
    const copies = path.join(folder, "copies-1");
    await saveAgain(first, recipe, copies, MODEL_LIMIT);
    const names = readdirSync(copies);
    assert.ok(names.length >= 5, names.join(", "));

    let last = first;
    // Each reads what the one before has written.
    for (const [ranks, ...stages] of chain) {
      const jobs: Job[] = [];
      for (const stage of stages) {
        const name = `${jobs.length}-of-${ranks}-after-${path.basename(path.dirname(last))}`;
        const outputDir = path.join(folder, name);
        jobs.push({
          recipe: { ...recipe, resumeFromCheckpoint: last, outputDir },
          stage,
          model: { folder: path.join(folder, `copies-${name}`), maxShardBytes: MODEL_LIMIT },
        });
        last = path.join(outputDir, "checkpoint-3");
      }
      const { code, stderr, reports } = await runJobs(t, ranks, jobs);
      assert.equal(code, 0, stderr);
      assert.deepEqual(reports, Array(ranks).fill(stages.map(() => null)), stderr);
      for (const {
        recipe: { outputDir },
        model,
      } of jobs) {
        const dir = path.join(outputDir, "checkpoint-3");
        const parts = Array.from(
          { length: ranks },
          (_, rank) => `optimizer-0000${rank + 1}-of-0000${ranks}.safetensors`,
        );
        const written = ["optimizer.safetensors.index.json", ...parts];
        const files = readdirSync(first).filter((file) => file !== "optimizer.safetensors");
        assert.deepEqual(readdirSync(dir).sort(), [...files, ...written].sort());
        assert.deepEqual(await optimizerOf(dir), wanted);
        for (const file of files) assert.equal(textOf(dir, file), textOf(first, file), file);
        assert.deepEqual(readdirSync(model!.folder).sort(), names.sort());
        for (const file of names)
          assert.equal(textOf(model!.folder, file), textOf(copies, file), file);
        assert.deepEqual(leftovers(outputDir), []);
      }
    }
  });
}

/** A run of six steps of four pairs on `ranks` ranks, saved after every third. */
function sharedRun(outputDir: string, changes: Partial<RecipeInput> = {}): Input {
  const save = { saveStrategy: "steps", saveSteps: 3, maxSteps: 6 } as const;
  return { ...trajectory({ shuffle: true, ...save, ...changes }), outputDir };
}

async function trainOn(t: TestContext, ranks: number, recipe: Input): Promise<RankReport> {
  if (ranks === 1) {
    const { notices } = await runRecipe(recipe, { threads: 1 });
    return { steps: [], evals: [], reporterCalls: 0, notices };
  }
  const file = path.join(temporaryFolder(t), "task.json");
  writeFileSync(file, JSON.stringify({ recipe } satisfies RankTask));
  const { code, reports, stderr } = await runRanks<RankReport>(ranks, program("rank.js"), [file]);
  assert.equal(code, 0, stderr);
  return reports[0]!;
}

/** Losses as close as f32 sums in another order are; counts exactly. */
function assertSameCurve(found: readonly MetricRecord[], wanted: readonly MetricRecord[]): void {
  assert.equal(found.length, wanted.length);
  for (const [i, { step, loss, num_tokens, learning_rate }] of wanted.entries()) {
    const other = found[i]!;
    assert.deepEqual([other.step, other.num_tokens], [step, num_tokens]);
    assert.equal(other.learning_rate, learning_rate);
    const tolerance = 1e-4 * Math.abs(loss!) + 1e-6;
    assert.ok(Math.abs(other.loss! - loss!) <= tolerance, `step ${step}: ${other.loss}, ${loss}`);
  }
}

test("a run saved by 2 ranks goes on with 1, 3 and 4 as it would have: the same pairs in a step, the same curve", {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const recipe = sharedRun(path.join(folder, "two"), {
    perDeviceTrainBatchSize: 1,
    gradientAccumulationSteps: 2,
  });
  await trainOn(t, 2, recipe);
  const whole = outputOf(recipe.outputDir);
  assert.equal(whole.steps.length, 6);
  const from = path.join(recipe.outputDir, "checkpoint-3");
  for (const [ranks, zeroStage] of [
    [1, 1],
    [3, 3],
    [4, 2],
  ] as const) {
    const outputDir = path.join(folder, `on-${ranks}`);
    cpSync(recipe.outputDir, outputDir, { recursive: true });
    const resumed = { ...recipe, zeroStage, outputDir, resumeFromCheckpoint: from };
    const { notices } = await trainOn(t, ranks, resumed);
    assertSameCurve(outputOf(outputDir).steps, whole.steps);
    const these = ranks === 1 ? "one process" : `${ranks} processes`;
    assert.equal(
      notices.filter((text) => /examples per optimizer step/.test(text)).join(),
      `checkpoint-3 was written by 2 processes with 4 examples per optimizer step; this run of ${these} keeps them (the recipe alone would make it ${2 * ranks})`,
    );
    // What it saves is a checkpoint of its own kind, and keeps what a step is.
    const state = JSON.parse(textOf(path.join(outputDir, "checkpoint-6"), "run_state.json"));
    const { examplesPerStep, examplesPerRank } = state;
    assert.deepEqual(
      { ranks: state.ranks, examplesPerStep, examplesPerRank },
      {
        ranks,
        examplesPerStep: 4,
        examplesPerRank: 2,
      },
    );
  }
});

for (const [ranks, zeroStage, bf16] of [
  [2, 3, false],
  [3, 1, true],
] as const) {
  test(`${ranks} ranks that go on from what ${ranks} ranks saved end equal in every bit (zero_stage ${zeroStage}, bf16: ${bf16})`, {
    skip,
  }, async (t) => {
    const outputDir = path.join(temporaryFolder(t), "run");
    const recipe = sharedRun(outputDir, { zeroStage, bf16 });
    await trainOn(t, ranks, recipe);
    const whole = withoutTimes(outputOf(outputDir).records);
    const weights = weightBytes(outputDir);
    const state = await optimizerOf(path.join(outputDir, "checkpoint-6"));
    const from = path.join(outputDir, "checkpoint-3");
    const { notices } = await trainOn(t, ranks, { ...recipe, resumeFromCheckpoint: from });
    assert.deepEqual(
      notices.filter((text) => /examples per/.test(text)),
      [],
    );
    assert.deepEqual(withoutTimes(outputOf(outputDir).records), whole);
    assert.ok(weightBytes(outputDir).equals(weights));
    assert.deepEqual(await optimizerOf(path.join(outputDir, "checkpoint-6")), state);
  });
}

test("the best checkpoint of 2 ranks becomes the result of a run that 3 ranks end", {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const best = {
    datasetMixer: { [await splitFolder(folder, 5)]: 1 },
    doEval: true,
    evalStrategy: "steps",
    evalSteps: 3,
    loadBestModelAtEnd: true,
    metricForBestModel: "eval_loss",
    // The loss falls, so the worst by name is the first.
    greaterIsBetter: true,
  } as const;
  const recipe = sharedRun(path.join(folder, "run"), { ...best, maxSteps: 3 });
  await trainOn(t, 2, recipe);
  const { outputDir } = recipe;
  const { notices } = await trainOn(t, 3, {
    ...recipe,
    maxSteps: 6,
    zeroStage: 3,
    resumeFromCheckpoint: true,
  });
  assert.match(notices.join("\n"), /output_dir holds the weights of checkpoint-3, not the last/);
  const [result, chosen, last] = await Promise.all(
    [outputDir, path.join(outputDir, "checkpoint-3"), path.join(outputDir, "checkpoint-6")].map(
      readTensors,
    ),
  );
  assert.deepEqual(result, chosen);
  assert.notDeepEqual(result, last);
});

/** A checkpoint of 2 ranks and the recipe that wrote it. */
async function savedByTwo(t: TestContext): Promise<{ folder: string; recipe: Input; dir: string }> {
  const folder = temporaryFolder(t);
  const recipe = sharedRun(path.join(folder, "saved"), { maxSteps: 3 });
  await trainOn(t, 2, recipe);
  return { folder, recipe, dir: path.join(recipe.outputDir, "checkpoint-3") };
}

test("a disk that refuses one rank ends the save of all; nothing is published or left, and the next save works", {
  skip,
}, async (t) => {
  const { folder, recipe, dir } = await savedByTwo(t);
  const job = (name: string): Job => {
    const outputDir = path.join(folder, name);
    return { recipe: { ...recipe, resumeFromCheckpoint: dir, outputDir }, stage: 1 };
  };
  // Rank 1 writes its half of the optimizer; rank 0 that and the model.
  const limits = [1, 0].map((rank) => ({
    ...job(`limit-${rank}`),
    limit: { rank, bytes: 200_000 },
  }));
  const { code, stderr, reports } = await runJobs(t, 2, [...limits, job("free")]);
  assert.equal(code, 0, stderr);
  const why = "cannot be written: the file is larger than the limit of the system allows";
  for (const [
    i,
    {
      limit,
      recipe: { outputDir },
    },
  ] of limits.entries()) {
    const [own, other] = [reports[limit.rank]![i]!, reports[1 - limit.rank]![i]!];
    const file = limit.rank === 1 ? "optimizer-00002-of-00002" : "model";
    assert.match(own.message, new RegExp(`${file}\\.safetensors: ${why}$`));
    assert.equal(other.message, `rank ${limit.rank}: ${own.message}`);
    assert.deepEqual([own.reported, other.reported], [false, true], "it is told once");
    assert.deepEqual(readdirSync(outputDir), []);
  }
  assert.deepEqual([reports[0]![2], reports[1]![2]], [null, null]);
  assert.deepEqual(
    await optimizerOf(path.join(folder, "free", "checkpoint-3")),
    await optimizerOf(dir),
  );
});

for (const [rank, at] of [
  [1, "files of the model"],
  [1, "optimizer state"],
  [0, "optimizer state"],
  [0, "publication of checkpoint-3"],
] as const) {
  test(`rank ${rank} is killed in a save, at "${at}": no checkpoint, and the next run removes what is left`, {
    skip,
  }, async (t) => {
    const { recipe, dir } = await savedByTwo(t);
    const earlier = path.join(path.dirname(recipe.outputDir), "earlier");
    cpSync(dir, earlier, { recursive: true });
    const { outputDir } = recipe;
    const before = await optimizerOf(dir);
    const job: Job = {
      recipe: { ...recipe, resumeFromCheckpoint: earlier },
      stage: 2,
      kill: { rank, at },
    };
    const { code, stderr } = await runJobs(t, 2, [job]);
    assert.notEqual(code, 0, stderr);
    // Rank 0 would have removed it.
    if (rank === 0 && at === "optimizer state") assert.equal(leftovers(outputDir).length, 1);
    // The older checkpoint of that step is there, or the new one: never a part of one.
    assert.deepEqual(checkpointSteps(outputDir), [3]);
    assert.deepEqual(await optimizerOf(dir), before);
    // Another number of ranks goes on from it and finds a clean folder.
    await trainOn(t, 1, { ...recipe, resumeFromCheckpoint: true, maxSteps: 6 });
    assert.deepEqual(leftovers(outputDir), []);
    assert.deepEqual(checkpointSteps(outputDir), [3, 6]);
  });
}

test("a piece that is cut short is one error before anything is trained", { skip }, async (t) => {
  const { recipe, dir } = await savedByTwo(t);
  const file = path.join(dir, "optimizer-00002-of-00002.safetensors");
  truncateSync(file, readFileSync(file).length - 1);
  const task = path.join(temporaryFolder(t), "task.json");
  const resumed = { ...recipe, resumeFromCheckpoint: true, maxSteps: 6 };
  writeFileSync(task, JSON.stringify({ recipe: resumed } satisfies RankTask));
  const { code, reports, stderr } = await runRanks<RankReport>(3, program("rank.js"), [task]);
  assert.notEqual(code, 0, stderr);
  const errors = reports.map((report) => report!.error!);
  for (const { message } of errors)
    assert.match(
      message,
      /optimizer-00002-of-00002\.safetensors: tensor ".+": its data ends at byte .*cut short/,
    );
  assert.deepEqual(
    errors.map(({ reported }) => reported),
    [false, true, true],
  );
  assert.deepEqual(checkpointSteps(recipe.outputDir), [3]);
  assert.deepEqual(leftovers(recipe.outputDir), []);
});
