import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Loss } from "#src/loss/index.js";
import { fixture } from "../support/paths.js";
import { checkpointSteps, runRecipe, splitFolder, temporaryFolder, trajectory } from "./support.js";

// What transformers' Trainer does with the same evaluations: test/fixtures/train/make_trainer_files.py.
interface Case {
  readonly name: string;
  /** eval_loss after steps 2, 4, 6, 8 and the last one; null: NaN. */
  readonly values: readonly (number | null)[];
  readonly greater_is_better: boolean | null;
  readonly save_total_limit: number | null;
  readonly max_steps: number;
  readonly best_step: number;
  readonly best_metric: number;
  readonly kept: readonly number[];
}

const { cases, keys } = JSON.parse(
  readFileSync(fixture("train", "trainer_files.json"), "utf8"),
) as { cases: Case[]; keys: Record<string, string[]> };

const TEST_PAIRS = 5;

/**
 * Evaluates to the values of a list, one after the other: the weights never change at a rate of 0.
 * @param sum of the SimPER terms of the test pairs under these weights
 */
function scripted(values: readonly (number | null)[], sum: number): Loss {
  let next = 0;
  const evaluation = (examples: number) => examples === TEST_PAIRS;
  return {
    name: "scripted",
    examples: "pairs",
    scale: ({ examples }) => {
      if (!evaluation(examples)) return 1 / examples;
      return (values[next++] ?? Number.NaN) / sum;
    },
    reduce: (s, mean, loss, coefficient, logp, responses, scale) =>
      s.simperLoss(mean, loss, coefficient, logp, responses, scale),
  };
}

const fixed = {
  learningRate: 0,
  doEval: true,
  evalSteps: 2,
  saveStrategy: "steps",
  saveSteps: 2,
} as const;

test("the best checkpoint, and those that stay, are the Trainer's for the same evaluations", async (t) => {
  const folder = temporaryFolder(t);
  const data = await splitFolder(folder, TEST_PAIRS);
  const input = trajectory({ datasetMixer: { [data]: 1 }, ...fixed });
  const once = { ...input, maxSteps: 2, outputDir: path.join(folder, "constant") };
  const sum = (await runRecipe(once, { loss: scripted([1], 1) })).evals[0]!.eval_loss!;
  assert.ok(Math.abs(sum) > 1e-3);
  for (const [i, expected] of cases.entries()) {
    const outputDir = path.join(folder, String(i));
    const { greater_is_better: greaterIsBetter, save_total_limit: saveTotalLimit } = expected;
    const { evals } = await runRecipe(
      {
        ...input,
        maxSteps: expected.max_steps,
        saveTotalLimit,
        greaterIsBetter,
        loadBestModelAtEnd: true,
        outputDir,
      },
      { loss: scripted(expected.values, sum) },
    );
    assert.equal(evals.length, 5);
    const what = JSON.stringify(expected);
    const state = JSON.parse(readFileSync(path.join(outputDir, "trainer_state.json"), "utf8"));
    assert.equal(
      path.basename(state.best_model_checkpoint),
      `checkpoint-${expected.best_step}`,
      what,
    );
    assert.ok(Math.abs(state.best_metric - expected.best_metric) < 1e-5, what); // f32 terms
    // With a limit of 1 the Trainer removes the last checkpoint in the end; here it stays, to go on from.
    const last = saveTotalLimit === 1 ? [expected.max_steps] : [];
    const kept = [...new Set([...expected.kept, ...last])];
    assert.deepEqual(checkpointSteps(outputDir), kept, what);
  }
});

test("the files of final metrics have the Trainer's keys, and no others but the metrics of pairs", async (t) => {
  const folder = temporaryFolder(t);
  const data = await splitFolder(folder, TEST_PAIRS);
  const outputDir = path.join(folder, "run");
  await runRecipe({ ...trajectory({ datasetMixer: { [data]: 1 }, ...fixed }), outputDir });
  const read = (name: string) => JSON.parse(readFileSync(path.join(outputDir, name), "utf8"));
  const own = (record: object) =>
    Object.keys(record)
      .filter((name) => !/^eval_(rewards|logps|simper)\//.test(name))
      .sort();
  // Its save_metrics leaves total_flos out in some versions; its log always has it.
  for (const name of ["train", "eval", "all"]) {
    const flos = name === "eval" ? [] : ["total_flos"];
    const wanted = [...new Set([...keys[name]!, ...flos])].sort();
    assert.deepEqual(own(read(`${name}_results.json`)), wanted);
  }
  const history: Record<string, number>[] = read("trainer_state.json").log_history;
  assert.deepEqual(own(history.at(-1)!), keys["last entry of log_history"]);
  const evaluation = history.find((entry) => "eval_loss" in entry)!;
  assert.deepEqual(own(evaluation), keys["evaluation in log_history"]);
});
