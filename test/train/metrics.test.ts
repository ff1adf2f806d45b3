import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { fixture } from "../support/paths.js";
import {
  gqaPairs,
  type MetricRecord,
  outputOf,
  type PairRow,
  readLines,
  runRecipe,
  splitFolder,
  temporaryFolder,
  trajectory,
  withoutTimes,
} from "./support.js";

const pairNames = [
  "rewards/chosen",
  "rewards/rejected",
  "rewards/accuracies",
  "rewards/margins",
  "logps/chosen",
  "logps/rejected",
  "simper/chosen",
  "simper/rejected",
];
const stepNames = [
  "step",
  "epoch",
  "loss",
  "grad_norm",
  "learning_rate",
  ...pairNames,
  "num_tokens",
  "num_computed_tokens",
  "step_time",
  "tokens_per_second",
  "pairs_per_second",
];

interface Expected {
  readonly pairs: readonly {
    readonly loss: number;
    readonly chosen: Side;
    readonly rejected: Side;
  }[];
}
interface Side {
  readonly mean: number;
}
const expected = JSON.parse(
  readFileSync(fixture("model", "llama-gqa", "expected.json"), "utf8"),
) as Expected;

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const near = (got: number | undefined, want: number, what: string) =>
  assert.ok(Math.abs(got! - want) <= 2e-6, `${what}: ${got}, expected ${want}`);

/** Metrics of untrained pairs [begin, end) by their definition. */
function metricsOf(begin: number, end: number): Record<string, number> {
  const pairs = expected.pairs.slice(begin, end);
  const chosen = pairs.map((pair) => pair.chosen.mean);
  const rejected = pairs.map((pair) => pair.rejected.mean);
  return {
    loss: mean(pairs.map(({ loss }) => loss)),
    "rewards/chosen": mean(chosen),
    "rewards/rejected": mean(rejected),
    "rewards/accuracies": mean(chosen.map((value, i) => (value > rejected[i]! ? 1 : 0))),
    "rewards/margins": mean(chosen) - mean(rejected),
    "logps/chosen": mean(chosen),
    "logps/rejected": mean(rejected),
    "simper/chosen": mean(chosen.map(Math.exp)),
    "simper/rejected": mean(rejected.map(Math.exp)),
  };
}

test("metrics.jsonl holds one record per step with every field, means over the pairs of the step", async (t) => {
  // At rate 0 nothing is learnt: every step measures the fixture's own weights.
  const outputDir = temporaryFolder(t);
  const { steps } = await runRecipe({ ...trajectory({ learningRate: 0, maxSteps: 6 }), outputDir });
  const rows = readLines<PairRow>(gqaPairs);
  // The last step of an epoch holds what remains: 2 of 14 pairs.
  const members = [
    [0, 4],
    [4, 8],
    [8, 12],
    [12, 14],
    [0, 4],
    [4, 8],
  ] as const;
  const epochs = [0.25, 0.5, 0.75, 1, 1.25, 1.5];
  assert.equal(steps.length, members.length);
  for (const [i, [begin, end]] of members.entries()) {
    const record = steps[i]!;
    assert.deepEqual(Object.keys(record).sort(), [...stepNames].sort());
    assert.equal(record.step, i + 1);
    assert.equal(record.epoch, epochs[i]);
    const want = metricsOf(begin, end);
    for (const [name, value] of Object.entries(want))
      near(record[name], value, `step ${i + 1} ${name}`);
    const tokens = rows
      .slice(begin, end)
      .reduce((sum, row) => sum + row.chosen_input_ids.length + row.rejected_input_ids.length, 0);
    assert.equal(record.num_tokens, tokens);
    assert.ok(record.num_computed_tokens! < tokens, "shared prompts are computed once");
    assert.ok(record.step_time! > 0);
    near(record.tokens_per_second! / (tokens / record.step_time!), 1, "tokens_per_second");
    near(record.pairs_per_second! / ((end - begin) / record.step_time!), 1, "pairs_per_second");
  }
});

test("without prefix sharing every token is computed", async (t) => {
  const outputDir = temporaryFolder(t);
  const input = trajectory({ maxSteps: 4, prefixSharing: false });
  const { steps } = await runRecipe({ ...input, outputDir });
  for (const record of steps) assert.equal(record.num_computed_tokens, record.num_tokens);
});

test("evaluation: at the start, every eval_steps and at the end, the mean over the test split", async (t) => {
  const folder = temporaryFolder(t);
  const outputDir = path.join(folder, "run");
  const data = await splitFolder(folder, 5);
  const evaluation = { doEval: true, evalOnStart: true, evalSteps: 3 } as const;
  const input = trajectory({ datasetMixer: { [data]: 1 }, ...evaluation });
  const { evals, records } = await runRecipe({ ...input, outputDir });
  assert.deepEqual(
    evals.map(({ step, epoch }) => [step, epoch]),
    [
      [0, 0],
      [3, 0.75],
      [6, 1.5],
      [9, 2.25],
      [10, 2.5],
    ],
  );
  const names = ["loss", ...pairNames, "runtime", "samples_per_second", "steps_per_second"].map(
    (name) => `eval_${name}`,
  );
  for (const record of evals) {
    assert.deepEqual(Object.keys(record).sort(), ["epoch", "step", ...names].sort());
  }
  for (const [name, value] of Object.entries(metricsOf(0, 5))) {
    near(evals[0]![`eval_${name}`], value, name);
  }
  assert.ok(evals.at(-1)!.eval_loss! < evals[0]!.eval_loss!, "it has learnt");
  // A record of an evaluation follows the record of its step.
  assert.deepEqual(
    records.map(({ step }) => step),
    [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 10],
  );

  // Evaluating changes nothing in training.
  const plain = path.join(folder, "plain");
  const unwatched = await runRecipe({ ...trajectory({}), outputDir: plain });
  const losses = ({ steps }: { steps: MetricRecord[] }) => steps.map(({ loss }) => loss);
  assert.deepEqual(losses(outputOf(outputDir)), losses(unwatched));
});

test("the size of evaluation batches does not change what is measured", async (t) => {
  const folder = temporaryFolder(t);
  const data = await splitFolder(folder, 14);
  const results: number[] = [];
  for (const [i, perDeviceEvalBatchSize] of [1, 8].entries()) {
    const evaluation = { doEval: true, evalOnStart: true, perDeviceEvalBatchSize };
    const maxTokensPerMicroBatch = [128, 512][i]!;
    const input = trajectory({
      datasetMixer: { [data]: 1 },
      maxSteps: 1,
      maxTokensPerMicroBatch,
      ...evaluation,
    });
    const { evals } = await runRecipe({ ...input, outputDir: path.join(folder, String(i)) });
    assert.equal(evals[0]!.step, 0);
    results.push(evals[0]!.eval_loss!);
  }
  near(results[0], metricsOf(0, 14).loss!, "one pair at a time");
  near(results[1], metricsOf(0, 14).loss!, "all at once");
});

for (const [evalStrategy, steps] of [
  ["epoch", [4, 8, 10]],
  ["no", [10]],
] as const) {
  test(`eval_strategy ${evalStrategy} evaluates after steps ${steps.join(", ")}`, async (t) => {
    const folder = temporaryFolder(t);
    const data = await splitFolder(folder, 3);
    const input = trajectory({ datasetMixer: { [data]: 1 }, doEval: true, evalStrategy });
    const { evals } = await runRecipe({ ...input, outputDir: path.join(folder, "run") });
    assert.deepEqual(
      evals.map(({ step }) => step),
      steps,
    );
  });
}

test("do_eval: false evaluates never; a test split that is not there is said once", async (t) => {
  const folder = temporaryFolder(t);
  const data = await splitFolder(folder, 3);
  const run = (name: string, changes: Parameters<typeof trajectory>[0]) =>
    runRecipe({ ...trajectory({ maxSteps: 2, ...changes }), outputDir: path.join(folder, name) });
  const mixer = { datasetMixer: { [data]: 1 } };
  const off = await run("off", { ...mixer, doEval: false, evalSteps: 1 });
  assert.equal(off.evals.length, 0);
  const none = await run("none", { doEval: true, evalSteps: 1 });
  assert.equal(none.evals.length, 0);
  assert.equal(none.notices.filter((text) => /there are no test rows/.test(text)).length, 1);
});

interface TrainerState {
  readonly global_step: number;
  readonly epoch: number;
  readonly max_steps: number;
  readonly num_input_tokens_seen: number;
  readonly log_history: readonly Record<string, number>[];
}

test("trainer_state.json agrees with metrics.jsonl: means over logging_steps, and evaluations", async (t) => {
  const folder = temporaryFolder(t);
  const outputDir = path.join(folder, "run");
  const data = await splitFolder(folder, 3);
  const changes = { datasetMixer: { [data]: 1 }, loggingSteps: 4, doEval: true, evalSteps: 5 };
  const { steps, evals } = await runRecipe({ ...trajectory(changes), outputDir });
  const file = path.join(outputDir, "trainer_state.json");
  const state = JSON.parse(readFileSync(file, "utf8")) as TrainerState;
  assert.equal(state.global_step, 10);
  assert.equal(state.max_steps, 10);
  assert.equal(state.epoch, 2.5);
  const seen = steps.reduce((sum, { num_tokens }) => sum + num_tokens!, 0);
  assert.equal(state.num_input_tokens_seen, seen);
  const logged = state.log_history.filter((entry) => "loss" in entry);
  assert.deepEqual(
    logged.map(({ step }) => step),
    [4, 8, 10],
  );
  for (const [i, [begin, end]] of [
    [0, 4],
    [4, 8],
    [8, 10],
  ].entries()) {
    const losses = steps.slice(begin, end).map(({ loss }) => loss!);
    near(logged[i]!.loss, mean(losses), `log ${i}`);
  }
  const evaluated = state.log_history.filter((entry) => "eval_loss" in entry);
  assert.deepEqual(
    evaluated.map(({ step, eval_loss }) => [step, eval_loss]),
    evals.map(({ step, eval_loss }) => [step, eval_loss]),
  );
});

test("a resumed run's trainer_state.json is that of a run that was never interrupted", async (t) => {
  const outputDir = temporaryFolder(t);
  const save = { saveStrategy: "steps", saveSteps: 3, loggingSteps: 4 } as const;
  const read = () => {
    const text = readFileSync(path.join(outputDir, "trainer_state.json"), "utf8");
    const { log_history, ...rest } = JSON.parse(text) as TrainerState;
    const kept = log_history.filter((entry) => !("train_runtime" in entry));
    return { ...rest, log_history: withoutTimes(kept as MetricRecord[]) };
  };
  await runRecipe({ ...trajectory(save), outputDir });
  const whole = read();
  const resumeFromCheckpoint = path.join(outputDir, "checkpoint-3");
  await runRecipe({ ...trajectory(save), outputDir, resumeFromCheckpoint });
  assert.deepEqual(read(), whole);
});
