import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { defineConfig } from "#src/config/load.js";
import { ConfigError, ContractError } from "#src/errors.js";
import { type StepRecord, train } from "#src/index.js";
import { hostPairLoss, hostSequenceLoss, type Loss } from "#src/loss/index.js";
import { planHead } from "#src/model/index.js";
import { gqaPairs, readLines, temporaryFolder, trajectory, writeLines } from "../train/support.js";

/** Records of a short run of the fixture, with a loss of the caller's or the recipe's. */
async function run(
  outputDir: string,
  loss?: Loss,
  change: Parameters<typeof trajectory>[0] = {},
): Promise<StepRecord[]> {
  const { config } = defineConfig(trajectory({ maxSteps: 4, outputDir, ...change }));
  const steps: StepRecord[] = [];
  const onStep = (record: StepRecord) => steps.push(record);
  await train({ config, device: "cpu", onStep, ...(loss ? { loss } : {}) });
  return steps;
}

function assertAlike(actual: readonly StepRecord[], expected: readonly StepRecord[]): void {
  assert.equal(actual.length, expected.length);
  for (const [i, record] of actual.entries()) {
    for (const name of ["loss", "grad_norm", "rewards/margins"] as const) {
      // The same formula in another place: sums of f32 in another order, through four updates.
      const error = Math.abs(record[name]! - expected[i]![name]!);
      assert.ok(error < 2e-6, `step ${record.step}: ${name} ${record[name]} ${expected[i]![name]}`);
    }
  }
}

/** −p(chosen) + p(rejected) with p = exp(mean): d/d mean is each term itself. */
const simperOnHost = hostPairLoss("simper on the host", ({ chosen, rejected }) => {
  const [w, l] = [Math.exp(chosen.mean), Math.exp(rejected.mean)];
  return { loss: l - w, dChosen: -w, dRejected: l };
});

test("host loss: SimPER written in JavaScript trains as the op does", async (t) => {
  const folder = temporaryFolder(t);
  assertAlike(await run(`${folder}/host`, simperOnHost), await run(`${folder}/op`));
});

test("host loss: gradients per token and an asynchronous term give the same", async (t) => {
  const folder = temporaryFolder(t);
  const loss = hostPairLoss("simper, token by token", async ({ chosen, rejected }) => {
    await setTimeout(1);
    const each = ({ logps, mean }: typeof chosen, sign: number) =>
      new Float32Array(logps.length).fill((sign * Math.exp(mean)) / logps.length);
    return {
      loss: Math.exp(rejected.mean) - Math.exp(chosen.mean),
      dChosen: each(chosen, -1),
      dRejected: each(rejected, 1),
    };
  });
  assertAlike(await run(`${folder}/host`, loss), await run(`${folder}/op`));
});

test("host loss: evaluations use it, too", async (t) => {
  const folder = temporaryFolder(t);
  writeLines(`${folder}/test.jsonl`, readLines(gqaPairs));
  writeLines(`${folder}/train.jsonl`, readLines(gqaPairs));
  const { config } = defineConfig(
    trajectory({
      maxSteps: 2,
      outputDir: `${folder}/out`,
      datasetMixer: { [folder]: 1 },
      datasetSplits: ["train", "test"],
      doEval: true,
      perDeviceTrainBatchSize: 14,
      gradientAccumulationSteps: 1,
      evalOnStart: true,
    }),
  );
  const steps: StepRecord[] = [];
  const evals: number[] = [];
  await train({
    config,
    loss: simperOnHost,
    onStep: (record) => steps.push(record),
    onEval: (record) => evals.push(record.eval_loss!),
  });
  assert.equal(evals.length, 2);
  // Before the first step the test split, which is the training split, has the loss of that step.
  assert.ok(Math.abs(evals[0]! - steps[0]!.loss) < 1e-6, `${evals[0]} ${steps[0]!.loss}`);
});

test("host loss: a loss on sequences trains as sft does where all weigh the same", async (t) => {
  const folder = temporaryFolder(t);
  // Sequences of one length: the mean over sequences is the mean over tokens.
  const rows = [3, 5, 7, 11].map((first) => ({
    input_ids: Array.from({ length: 12 }, (_, i) => first + i),
  }));
  const data = writeLines(`${folder}/rows.jsonl`, rows);
  const change = { lossType: "sft", datasetMixer: { [data]: 1 } } as const;
  const nll = hostSequenceLoss("nll", ({ mean }) => ({ loss: -mean, dSequence: -1 }));
  const expected = await run(`${folder}/op`, undefined, change);
  const actual = await run(`${folder}/host`, nll, change);
  for (const [i, { loss, grad_norm }] of actual.entries()) {
    assert.ok(Math.abs(loss - expected[i]!.loss) < 1e-5, `${loss} ${expected[i]!.loss}`);
    assert.ok(Math.abs(grad_norm - expected[i]!.grad_norm) < 1e-4);
  }
});

test("host loss: what a term must not return ends the run with a message", async (t) => {
  const folder = temporaryFolder(t);
  const refused = (term: unknown, message: RegExp) =>
    assert.rejects(
      run(`${folder}/out`, hostPairLoss("mine", term as Parameters<typeof hostPairLoss>[1])),
      (error: unknown) => {
        assert.ok(error instanceof ContractError, String(error));
        assert.match(error.message, message);
        return true;
      },
    );
  await refused(
    () => undefined,
    /^loss "mine" returned undefined, expected an object \{loss, dChosen, dRejected\}$/,
  );
  await refused(
    () => ({ loss: "1", dChosen: 0, dRejected: 0 }),
    /^loss "mine": pair 0 of a group: loss is "1", expected a number$/,
  );
  await refused(
    () => ({ loss: 1, dChosen: 0 }),
    /^loss "mine": pair 0 of a group: dRejected is undefined, expected a number \(d loss \/ d mean\) or a Float32Array of \d+ \(d loss \/ d logps\)$/,
  );
  await refused(
    () => ({ loss: 1, dChosen: new Float32Array(999), dRejected: 0 }),
    /^loss "mine": pair 0 of a group: dChosen has 999 elements, expected one for each of the \d+ scored tokens$/,
  );
  const broken = hostPairLoss("mine", () => {
    throw new RangeError("from the term");
  });
  await assert.rejects(run(`${folder}/out`, broken), new RangeError("from the term"));
});

test("train: a loss on sequences does not fit a recipe of pairs", async (t) => {
  const nll = hostSequenceLoss("nll", ({ mean }) => ({ loss: -mean, dSequence: -1 }));
  await assert.rejects(run(`${temporaryFolder(t)}/out`, nll), (error: unknown) => {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(
      error.message,
      'loss "nll" trains on sequences, and loss_type SimPER prepares pairs',
    );
    assert.match(error.hint!, /loss_type: sft/);
    return true;
  });
});

test("train: a checkpoint is resumed with the loss it was begun with", async (t) => {
  const outputDir = `${temporaryFolder(t)}/out`;
  await run(outputDir, simperOnHost, { maxSteps: 4, saveStrategy: "steps", saveSteps: 2 });
  await assert.rejects(
    run(outputDir, undefined, { maxSteps: 4, resumeFromCheckpoint: `${outputDir}/checkpoint-2` }),
    /loss_type was simper on the host and is now SimPER/,
  );
});

test("train: what a callback throws ends the run", async (t) => {
  const { config } = defineConfig(trajectory({ outputDir: `${temporaryFolder(t)}/out` }));
  const onStep = ({ step }: StepRecord) => {
    if (step === 2) throw new Error("enough");
  };
  await assert.rejects(train({ config, onStep }), new Error("enough"));
});

test("head: wholePairs keeps the two responses of a pair in one group", () => {
  const lengths = [20, 20, 20, 20, 50, 60];
  const ends = lengths.map((_, r) => lengths.slice(0, r + 1).reduce((sum, n) => sum + n, 0));
  const row = ends.at(-1)!;
  const responses = Int32Array.from(ends.flatMap((end, r) => [end - lengths[r]!, end, r % 2]));
  const rows = Int32Array.from({ length: row }, (_, i) => i);
  const batch = { scoredRows: rows, scoredLabels: rows, responses };
  const groups = (together?: number) =>
    planHead(batch, row, 64, together).groups.map((group) => group.responses);
  assert.deepEqual(groups(), [3, 1, 1, 1]);
  assert.deepEqual(groups(2), [2, 2, 2]);
});
