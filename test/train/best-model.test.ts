import assert from "node:assert/strict";
import { readFileSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import { CheckpointError, ConfigError, DataError } from "#src/errors.js";
import type { Loss } from "#src/loss/index.js";
import {
  checkpointSteps,
  gqaPairs,
  type MetricRecord,
  type PairRow,
  readLines,
  runCli,
  runRecipe,
  splitFolder,
  temporaryFolder,
  trajectory,
  trajectoryRecipe,
  weightBytes,
  withoutTimes,
  words,
  writeLines,
} from "./support.js";

/** Evaluations and checkpoints every two of ten steps, at a rate that makes the loss go down and up again. */
async function recipe(
  folder: string,
  changes: Partial<RecipeInput> = {},
): Promise<RecipeInput & { outputDir: string }> {
  const data = await splitFolder(folder, 5);
  const often = { doEval: true, evalSteps: 2, saveStrategy: "steps", saveSteps: 2 } as const;
  return {
    ...trajectory({
      datasetMixer: { [data]: 1 },
      learningRate: 0.05,
      loadBestModelAtEnd: true,
      ...often,
      ...changes,
    }),
    outputDir: path.join(folder, "run"),
  };
}

interface State {
  readonly best_metric: number | null;
  readonly best_model_checkpoint: string | null;
}

function stateOf(folder: string): State {
  return JSON.parse(readFileSync(path.join(folder, "trainer_state.json"), "utf8"));
}

function evalResults(outputDir: string): Record<string, number> {
  return JSON.parse(readFileSync(path.join(outputDir, "eval_results.json"), "utf8"));
}

/** The first evaluation after step 0 that no other beats. */
function bestOf(evals: readonly MetricRecord[], metric: string, sign: 1 | -1): MetricRecord {
  const candidates = evals.filter(({ step }) => step > 0);
  return candidates.reduce((a, b) => (sign * b[metric]! > sign * a[metric]! ? b : a));
}

for (const [bf16, saveDtype] of [
  [false, "float32"],
  [false, "bfloat16"],
  [true, "bfloat16"],
] as const) {
  test(`load_best_model_at_end: output_dir gets the best checkpoint's weights (bf16 ${bf16}, ${saveDtype})`, async (t) => {
    const input = await recipe(temporaryFolder(t), { bf16, saveDtype });
    const { outputDir } = input;
    const { evals, notices, summary } = await runRecipe(input);
    const best = bestOf(evals, "eval_loss", -1);
    assert.ok(best.step < 10, `the best step is ${best.step}: nothing to choose`);
    const folder = path.join(outputDir, `checkpoint-${best.step}`);
    assert.ok(weightBytes(outputDir).equals(weightBytes(folder)));
    assert.ok(!weightBytes(outputDir).equals(weightBytes(path.join(outputDir, "checkpoint-10"))));
    assert.equal(stateOf(outputDir).best_metric, best.eval_loss);
    assert.equal(stateOf(outputDir).best_model_checkpoint, folder);
    // The results are those of the weights beside them.
    assert.equal(evalResults(outputDir).eval_loss, best.eval_loss);
    assert.equal(summary.eval?.eval_loss, best.eval_loss);
    const said = new RegExp(
      `^output_dir holds the weights of checkpoint-${best.step}, not the last ones: the best by eval_loss, lower is better`,
    );
    assert.ok(
      notices.some((text) => said.test(text)),
      notices.join("\n"),
    );
  });
}

test("choosing the best changes nothing in training, and evaluating its weights gives its numbers", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder);
  const chosen = await runRecipe(input);
  const plain = await runRecipe({
    ...input,
    loadBestModelAtEnd: false,
    outputDir: path.join(folder, "plain"),
  });
  assert.deepEqual(withoutTimes(chosen.records), withoutTimes(plain.records));
  assert.ok(
    weightBytes(plain.outputDir).equals(weightBytes(path.join(input.outputDir, "checkpoint-10"))),
  );
  const again = await runRecipe({
    ...input,
    modelNameOrPath: input.outputDir,
    loadBestModelAtEnd: false,
    evalOnStart: true,
    maxSteps: 1,
    outputDir: path.join(folder, "again"),
  });
  assert.equal(again.evals[0]!.eval_loss, evalResults(input.outputDir).eval_loss);
});

for (const [metric, given, sign] of [
  ["eval_rewards/rejected", undefined, 1],
  ["rewards/rejected", false, -1],
  ["logps/chosen", undefined, 1],
  ["eval_loss", true, 1],
  ["loss", undefined, -1],
] as const) {
  test(`metric_for_best_model ${metric}, greater_is_better ${given ?? "by its name"}`, async (t) => {
    const input = await recipe(temporaryFolder(t), {
      metricForBestModel: metric,
      ...(given === undefined ? {} : { greaterIsBetter: given }),
    });
    const { evals, outputDir } = await runRecipe(input);
    const name = metric.startsWith("eval_") ? metric : `eval_${metric}`;
    const best = bestOf(evals, name, sign);
    assert.equal(stateOf(outputDir).best_metric, best[name]);
    const folder = path.join(outputDir, `checkpoint-${best.step}`);
    assert.equal(stateOf(outputDir).best_model_checkpoint, folder);
    assert.ok(weightBytes(outputDir).equals(weightBytes(folder)));
  });
}

test("the last step is a candidate even where no save is due", async (t) => {
  const changes = { evalSteps: 3, saveSteps: 3, metricForBestModel: "eval_rewards/rejected" };
  // Rejected answers become less likely with every step, so that the last one is the best.
  const input = await recipe(temporaryFolder(t), {
    ...changes,
    greaterIsBetter: false,
    learningRate: 0.002,
  });
  const { evals, outputDir, notices } = await runRecipe(input);
  assert.equal(bestOf(evals, "eval_rewards/rejected", -1).step, 10);
  assert.deepEqual(checkpointSteps(outputDir), [3, 6, 9, 10]);
  assert.equal(stateOf(outputDir).best_model_checkpoint, path.join(outputDir, "checkpoint-10"));
  assert.ok(notices.some((text) => /^output_dir holds the last weights: the best by/.test(text)));
});

test("save_total_limit never removes the best checkpoint", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder);
  const { evals } = await runRecipe({ ...input, outputDir: path.join(folder, "all") });
  const best = bestOf(evals, "eval_loss", -1).step;
  assert.ok(best < 8, `best step ${best}`);
  for (const [limit, kept] of [
    [1, [best, 10]],
    [2, [best, 10]],
    [3, [best, 8, 10]],
  ] as const) {
    const outputDir = path.join(folder, `limit-${limit}`);
    await runRecipe({ ...input, saveTotalLimit: limit, outputDir });
    assert.deepEqual(checkpointSteps(outputDir), kept, `limit ${limit}`);
    assert.ok(
      weightBytes(outputDir).equals(weightBytes(path.join(outputDir, `checkpoint-${best}`))),
    );
  }
});

test("without load_best_model_at_end a metric_for_best_model is recorded, and the last weights are written", async (t) => {
  const input = await recipe(temporaryFolder(t), {
    loadBestModelAtEnd: false,
    metricForBestModel: "loss",
  });
  const { evals, outputDir } = await runRecipe(input);
  const best = bestOf(evals, "eval_loss", -1);
  assert.equal(stateOf(outputDir).best_metric, best.eval_loss);
  assert.ok(weightBytes(outputDir).equals(weightBytes(path.join(outputDir, "checkpoint-10"))));
  assert.equal(evalResults(outputDir).eval_loss, evals.at(-1)!.eval_loss);
});

test("a resumed run chooses the same checkpoint, wherever it goes on from", async (t) => {
  const input = await recipe(temporaryFolder(t));
  const { outputDir } = input;
  const whole = await runRecipe(input);
  const state = stateOf(outputDir);
  const weights = weightBytes(outputDir);
  const best = bestOf(whole.evals, "eval_loss", -1).step;
  for (const step of [2, 4, 6, 8, 10]) {
    const resumeFromCheckpoint = path.join(outputDir, `checkpoint-${step}`);
    const again = await runRecipe({ ...input, resumeFromCheckpoint });
    assert.deepEqual(withoutTimes(again.records), withoutTimes(whole.records));
    assert.equal(stateOf(outputDir).best_metric, state.best_metric);
    assert.equal(stateOf(outputDir).best_model_checkpoint, state.best_model_checkpoint);
    assert.ok(weightBytes(outputDir).equals(weights), `resumed after ${step}, best ${best}`);
  }
});

test("stopped at every step and during evaluations, the run still chooses the same checkpoint", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, { saveTotalLimit: 1 });
  const whole = await runRecipe({ ...input, outputDir: path.join(folder, "whole") });
  const best = bestOf(whole.evals, "eval_loss", -1).step;
  let done = false;
  let stops = 0;
  for (; !done && stops < 40; stops++) {
    const interruption = new AbortController();
    const stop = () => interruption.abort();
    // A step is reported before the evaluation after it begins, which then gives up.
    const { summary } = await runRecipe(
      { ...input, resumeFromCheckpoint: true },
      { watch: { step: stop, eval: stop }, signal: interruption.signal },
    );
    done = !summary.interrupted;
  }
  assert.ok(stops > 5, `${stops} stops`);
  const { outputDir } = input;
  assert.equal(stateOf(outputDir).best_metric, stateOf(whole.outputDir).best_metric);
  assert.ok(weightBytes(outputDir).equals(weightBytes(whole.outputDir)));
  assert.ok(checkpointSteps(outputDir).includes(best));
});

test("a run that was moved finds its best checkpoint; one that lost it says so at once", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder);
  const whole = await runRecipe(input);
  const best = bestOf(whole.evals, "eval_loss", -1).step;
  const weights = weightBytes(input.outputDir);
  const moved = path.join(folder, "moved");
  renameSync(input.outputDir, moved);
  const resumed = { ...input, outputDir: moved, resumeFromCheckpoint: true };
  await runRecipe(resumed);
  assert.ok(weightBytes(moved).equals(weights));

  rmSync(path.join(moved, `checkpoint-${best}`), { recursive: true });
  await assert.rejects(runRecipe(resumed), (error: unknown) => {
    assert.ok(error instanceof CheckpointError);
    assert.match(
      error.message,
      new RegExp(
        `checkpoint-10: the best checkpoint before it, .*checkpoint-${best}, is not there`,
      ),
    );
    assert.match(error.hint!, /load_best_model_at_end: false/);
    return true;
  });
  await runRecipe({ ...resumed, loadBestModelAtEnd: false });
});

test("a best checkpoint that goes while the run lasts is an error, after the last weights are written", async (t) => {
  const input = await recipe(temporaryFolder(t));
  const { outputDir } = input;
  const remove = ({ step }: { step: number }) => {
    if (step < 10) return;
    const { best_model_checkpoint: best } = stateOf(path.join(outputDir, "checkpoint-8"));
    rmSync(best!, { recursive: true });
  };
  await assert.rejects(runRecipe(input, { watch: { eval: remove } }), (error: unknown) => {
    assert.ok(error instanceof CheckpointError);
    assert.match(error.message, /checkpoint-\d: the best checkpoint, by eval_loss .*, is gone$/);
    assert.match(error.hint!, /output_dir holds the last weights/);
    return true;
  });
  assert.ok(weightBytes(outputDir).equals(weightBytes(path.join(outputDir, "checkpoint-10"))));
});

test("another metric is another choice: a checkpoint made by the old one is refused", async (t) => {
  const input = await recipe(temporaryFolder(t), { maxSteps: 2 });
  await runRecipe(input);
  const changed = { ...input, resumeFromCheckpoint: true, metricForBestModel: "rewards/margins" };
  await assert.rejects(runRecipe(changed), {
    name: "CheckpointError",
    message:
      /metric_for_best_model was eval_loss, lower is better, and is now eval_rewards\/margins, higher is better$/,
  });
});

test("where no evaluation has a number the last weights are written, and a notice says why", async (t) => {
  const folder = temporaryFolder(t);
  const input = await recipe(folder, { maxSteps: 2 });
  const rows = readLines<PairRow>(gqaPairs);
  writeLines(path.join(folder, "data", "test.jsonl"), rows.slice(0, 1));
  const loss: Loss = {
    name: "NaN in evaluations",
    examples: "pairs",
    scale: ({ examples }) => (examples === 1 ? Number.NaN : 1 / examples),
    reduce: (s, mean, terms, coefficient, logp, responses, scale) =>
      s.simperLoss(mean, terms, coefficient, logp, responses, scale),
  };
  const { notices, outputDir } = await runRecipe(input, { loss });
  assert.ok(
    notices.some((text) =>
      /no checkpoint has an evaluation where eval_loss is a number/.test(text),
    ),
    notices.join("\n"),
  );
  assert.ok(weightBytes(outputDir).equals(weightBytes(path.join(outputDir, "checkpoint-2"))));
});

test("a metric that the run will not have is refused before any data are read", async (t) => {
  const input = await recipe(temporaryFolder(t), { metricForBestModel: "accuracy" });
  const nowhere = { ...input, datasetMixer: { "/no/such/data": 1 } };
  await assert.rejects(runRecipe(nowhere), (error: unknown) => {
    assert.ok(error instanceof ConfigError);
    assert.match(
      error.message,
      /^metric_for_best_model: expected a metric of the run's evaluations, received "accuracy"; there will be eval_loss, eval_rewards\/chosen, .*eval_simper\/rejected$/,
    );
    assert.match(error.hint!, /with or without eval_/);
    return true;
  });
});

test("sft_loss is a metric where there is an SFT term, and is none elsewhere", async (t) => {
  const input = await recipe(temporaryFolder(t), { metricForBestModel: "sft_loss", maxSteps: 4 });
  const { evals, outputDir } = await runRecipe({ ...input, sftWeight: 0.5 });
  const best = bestOf(evals, "eval_sft_loss", -1);
  assert.equal(stateOf(outputDir).best_metric, best.eval_sft_loss);
  await assert.rejects(runRecipe(input), { name: "ConfigError", message: /received "sft_loss"/ });
});

test("plan refuses such a metric, too; the command line names the place of keys that do not fit together", async (t) => {
  const { outputDir, datasetMixer } = await recipe(temporaryFolder(t));
  const common = {
    dataset_mixer: JSON.stringify(datasetMixer),
    do_eval: true,
    eval_strategy: "steps",
    eval_steps: 2,
    output_dir: outputDir,
  };
  const run = (command: string, changes: object) =>
    runCli([command, trajectoryRecipe, ...words({ ...common, ...changes })]);
  const plan = await run("plan", { metric_for_best_model: "accuracy" });
  assert.equal(plan.code, 2);
  assert.match(plan.stderr, /metric_for_best_model: expected a metric .* received "accuracy"/);
  const train = await run("train", {
    load_best_model_at_end: true,
    save_strategy: "steps",
    save_steps: 3,
  });
  assert.equal(train.code, 2);
  assert.match(
    train.stderr,
    /--load_best_model_at_end: expected save_steps to be a multiple of eval_steps, received 3 and 2/,
  );
});

test("without test rows load_best_model_at_end is refused", async (t) => {
  const input = await recipe(temporaryFolder(t));
  await assert.rejects(
    runRecipe({ ...input, datasetMixer: { [gqaPairs]: 1 } }),
    (error: unknown) => {
      assert.ok(error instanceof DataError);
      assert.match(error.message, /load_best_model_at_end: expected test rows to evaluate on/);
      assert.match(error.hint!, /test\.jsonl/);
      return true;
    },
  );
});

for (const [changes, message] of [
  [
    { evalStrategy: "no" },
    /loadBestModelAtEnd: the best model is chosen by evaluations.*set eval_strategy/,
  ],
  [{ doEval: false }, /loadBestModelAtEnd: the best model is chosen by evaluations/],
  [
    { saveStrategy: "epoch" },
    /expected eval_strategy and save_strategy to agree, received steps and epoch/,
  ],
  [
    { evalSteps: 3, saveSteps: 10 },
    /expected save_steps to be a multiple of eval_steps, received 10 and 3/,
  ],
] as const) {
  test(`load_best_model_at_end with ${JSON.stringify(changes)} is refused`, () => {
    const often = { doEval: true, evalSteps: 2, saveStrategy: "steps", saveSteps: 4 } as const;
    const input = trajectory({
      loadBestModelAtEnd: true,
      datasetSplits: ["train", "test"],
      ...often,
      ...changes,
    });
    assert.throws(() => defineConfig(input), { name: "ConfigError", message });
  });
}
