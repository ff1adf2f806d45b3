import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { defineConfig } from "#src/config/load.js";
import { ConfigError } from "#src/errors.js";
import { createLoss, hostPairLoss, type Loss, type LossOptions } from "#src/loss/index.js";
import { groupWeights } from "#src/train/loss-groups.js";
import { train } from "#src/train/trainer.js";
import { lossAndGradients, readPairs } from "../model/support.js";
import { fixture } from "../support/paths.js";
import {
  gqaModel,
  gqaPairs,
  type MetricRecord,
  readLines,
  runRecipe,
  temporaryFolder,
  trajectory,
  writeLines,
} from "../train/support.js";

/** Log-probs of the fixture's 14 pairs, by PyTorch in float64. */
interface Pair {
  readonly chosen: { readonly logps: readonly number[] };
  readonly rejected: { readonly logps: readonly number[] };
}
const { pairs } = JSON.parse(
  readFileSync(fixture("model", "llama-gqa", "expected.json"), "utf8"),
) as { pairs: readonly Pair[] };

type Options = Partial<LossOptions>;
const defaults = { beta: 2, gammaBetaRatio: 0.25, labelSmoothing: 0, sftWeight: 0 } as const;

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const mean = (values: readonly number[]) => sum(values) / values.length;
const sigma = (x: number) => 1 / (1 + Math.exp(-x));

/** What a pair is worth by the two means, as the reference's trainer writes it. */
function term(options: Options, chosen: number, rejected: number): number {
  const { lossType, beta, gammaBetaRatio, labelSmoothing: s } = { ...defaults, ...options };
  const z = chosen - rejected - gammaBetaRatio;
  if (lossType === "sigmoid")
    return -(1 - s) * Math.log(sigma(beta * z)) - s * Math.log(sigma(-beta * z));
  if (lossType === "hinge") return Math.max(0, 1 - beta * z);
  return -Math.exp(chosen) + Math.exp(rejected);
}

/** Loss of consecutive pairs in loops over groups of `size`: the term of pairs, and that of SFT before its weight. */
function expectedLoss(options: Options, members: readonly Pair[], size: number) {
  const preference = mean(
    members.map(({ chosen, rejected }) => term(options, mean(chosen.logps), mean(rejected.logps))),
  );
  const groups: number[] = [];
  for (let begin = 0; begin < members.length; begin += size) {
    const tokens = members.slice(begin, begin + size).flatMap(({ chosen }) => chosen.logps);
    groups.push(-mean(tokens));
  }
  const sft = mean(groups);
  return { loss: preference + (options.sftWeight ?? 0) * sft, sft };
}

const close = (got: number | undefined, want: number, what: string, limit = 2e-6) =>
  assert.ok(Math.abs(got! - want) <= limit * (1 + Math.abs(want)), `${what}: ${got}, not ${want}`);

const losses: Readonly<Record<string, Options>> = {
  SimPER: { lossType: "SimPER" },
  "SimPER and SFT": { lossType: "SimPER", sftWeight: 0.3 },
  sigmoid: { lossType: "sigmoid", beta: 2.5, gammaBetaRatio: 0.55 },
  "sigmoid, smoothed, and SFT": { lossType: "sigmoid", labelSmoothing: 0.1, sftWeight: 0.05 },
  "hinge, wide margin": { lossType: "hinge", beta: 2, gammaBetaRatio: 0.8 },
  "hinge and SFT": { lossType: "hinge", beta: 0.5, gammaBetaRatio: 0, sftWeight: 1 },
};

/** The 14 pairs in one step, of one group or of four with a ragged last one, and in steps with groups of 4. */
const splits = [
  [14, 1],
  [4, 4],
  [4, 2],
] as const;
const packings = {
  "one micro-batch": { maxTokensPerMicroBatch: 4096 },
  "many micro-batches": { maxTokensPerMicroBatch: 128 },
  "prompts apart": { maxTokensPerMicroBatch: 200, prefixSharing: false },
};

for (const [name, options] of Object.entries(losses)) {
  test(`${name}: loss groups are consecutive pairs in data order, whatever the packing`, async (t) => {
    const folder = temporaryFolder(t);
    let run = 0;
    for (const [batch, accumulation] of splits) {
      const perStep = batch * accumulation;
      const norms: number[][] = [];
      for (const [packing, change] of Object.entries(packings)) {
        const input = trajectory({
          ...options,
          ...change,
          perDeviceTrainBatchSize: batch,
          gradientAccumulationSteps: accumulation,
          maxSteps: Math.ceil(14 / perStep),
          learningRate: 0, // every step measures the fixture's own weights
        });
        const { steps } = await runRecipe({ ...input, outputDir: `${folder}/${run++}` });
        for (const [i, record] of steps.entries()) {
          const members = pairs.slice(i * perStep, (i + 1) * perStep);
          const want = expectedLoss(options, members, batch);
          const what = `${batch} × ${accumulation}, ${packing}, step ${i + 1}`;
          close(record.loss, want.loss, `${what}: loss`);
          if (options.sftWeight) close(record.sft_loss, want.sft, `${what}: sft_loss`);
          else assert.ok(!("sft_loss" in record), what);
          const right = members.map(({ chosen, rejected }) =>
            mean(chosen.logps) > mean(rejected.logps) ? 1 : 0,
          );
          assert.equal(record["rewards/accuracies"], mean(right), what);
          // Rewards are the mean log-probs themselves, not multiplied by beta.
          const margins = members.map(
            (pair) => mean(pair.chosen.logps) - mean(pair.rejected.logps),
          );
          close(record["rewards/margins"], mean(margins), `${what}: margins`);
          assert.equal(record["rewards/chosen"], record["logps/chosen"]);
        }
        norms.push(steps.map(({ grad_norm }) => grad_norm!));
      }
      for (const other of norms.slice(1)) {
        for (const [i, norm] of other.entries()) close(norm, norms[0]![i]!, "gradient norm", 1e-5);
      }
    }
  });
}

/**
 * A loss in JavaScript that knows the fixture's groups by heart: it tells a pair by the lengths of its responses,
 * which no other has, and takes the weights from loops over the 14 pairs in file order. Slopes are differences.
 */
function byHeart(options: Options, groupSize: number): Loss {
  const STEP = 1e-4;
  const groups = Math.ceil(pairs.length / groupSize);
  return hostPairLoss("by heart", ({ chosen, rejected }) => {
    const found = pairs.findIndex(
      (pair) =>
        pair.chosen.logps.length === chosen.logps.length &&
        pair.rejected.logps.length === rejected.logps.length,
    );
    const begin = groupSize * Math.floor(found / groupSize);
    const group = pairs.slice(begin, begin + groupSize);
    const tokens = sum(group.map((pair) => pair.chosen.logps.length));
    // The loss of a step is a mean over pairs, so the SFT term of a pair counts as often as there are pairs.
    const perToken = ((options.sftWeight ?? 0) * pairs.length) / (groups * tokens);
    const slope = (dc: number, dr: number) =>
      (term(options, chosen.mean + dc, rejected.mean + dr) -
        term(options, chosen.mean - dc, rejected.mean - dr)) /
      (2 * STEP);
    return {
      loss: term(options, chosen.mean, rejected.mean) - perToken * chosen.sum,
      dChosen: slope(STEP, 0) - perToken * chosen.logps.length,
      dRejected: slope(0, STEP),
    };
  });
}

for (const [name, options] of Object.entries(losses)) {
  test(`${name}: trains as the same loss written in JavaScript with differences for slopes`, async (t) => {
    const folder = temporaryFolder(t);
    const lengths = pairs.map(({ chosen, rejected }) => [
      chosen.logps.length,
      rejected.logps.length,
    ]);
    assert.equal(new Set(lengths.map(String)).size, pairs.length);
    const run = async (input: Options, loss?: Loss) => {
      const shape = { perDeviceTrainBatchSize: 4, gradientAccumulationSteps: 4, maxSteps: 3 };
      const recipe = trajectory({ ...input, ...shape, maxTokensPerMicroBatch: 128 });
      const outputDir = `${folder}/${loss ? "host" : "op"}`;
      return (await runRecipe({ ...recipe, outputDir }, loss ? { loss } : {})).steps;
    };
    const expected = await run({}, byHeart(options, 4));
    const actual = await run(options);
    for (const [i, record] of actual.entries()) {
      // Coefficients in f32, differences with an error of STEP², and two updates of what these give.
      close(record.loss, expected[i]!.loss!, `loss of step ${i + 1}`, i === 0 ? 2e-6 : 1e-5);
      close(record.grad_norm, expected[i]!.grad_norm!, `norm of step ${i + 1}`, 1e-5);
    }
  });
}

test("sigmoid: the gradient of every weight is the same whatever the logits workspace holds", async () => {
  const all = readPairs(gqaPairs);
  const expected = await lossAndGradients(gqaModel, all, { groupRows: 512 }, "sigmoid");
  // Groups of a pair or two, and pairs longer than the workspace, which compute their logits twice.
  for (const way of [{ groupRows: 64 }, { groupRows: 32, checkpointing: true }]) {
    const { loss, gradients } = await lossAndGradients(gqaModel, all, way, "sigmoid");
    close(loss, expected.loss, "loss");
    for (const [name, want] of expected.gradients) {
      const got = gradients.get(name)!;
      const norm = Math.hypot(...want);
      const error = Math.hypot(...want.map((value, i) => value - got[i]!));
      // Weight gradients are sums over groups, rounded to f32 group by group.
      assert.ok(error <= 1e-6 * norm, `${name}: ${error / norm}`);
    }
  }
});

test("evaluation: groups are per_device_eval_batch_size pairs of the split, across its rounds", async (t) => {
  const folder = temporaryFolder(t);
  const rows = readLines(gqaPairs);
  writeLines(`${folder}/train.jsonl`, rows.slice(0, 4));
  writeLines(`${folder}/test.jsonl`, rows);
  const options = { lossType: "sigmoid", labelSmoothing: 0.2, sftWeight: 0.7 } as const;
  const evaluate = async (perDeviceEvalBatchSize: number): Promise<MetricRecord> => {
    const input = trajectory({
      ...options,
      datasetMixer: { [folder]: 1 },
      doEval: true,
      evalOnStart: true,
      perDeviceEvalBatchSize,
      // Steps of 2 pairs: an evaluation reads its results two by two.
      gradientAccumulationSteps: 1,
      maxTokensPerMicroBatch: 256,
      maxSteps: 1,
    });
    return (await runRecipe({ ...input, outputDir: `${folder}/out` })).evals[0]!;
  };
  for (const size of [3, 4, 14, 100]) {
    const record = await evaluate(size);
    const want = expectedLoss(options, pairs, size);
    close(record.eval_loss, want.loss, `eval_loss, groups of ${size}`);
    close(record.eval_sft_loss, want.sft, `eval_sft_loss, groups of ${size}`);
  }
});

test("group weights: a token mean in each group, then a mean over groups of any size", () => {
  assert.deepEqual([...groupWeights([], 2)], []);
  assert.deepEqual([...groupWeights([5], 4)], [1 / 5]);
  const weights = groupWeights([1, 3, 2, 6, 10], 2);
  assert.deepEqual(
    [...weights],
    [1 / (3 * 4), 1 / (3 * 4), 1 / (3 * 8), 1 / (3 * 8), 1 / (3 * 10)],
  );
});

test("SimPER without an SFT term is the op it always was, sft without options", () => {
  const simper = createLoss({ lossType: "SimPER", ...defaults });
  assert.deepEqual(Object.keys(simper), ["name", "examples", "scale", "reduce"]);
  const sft = createLoss({ lossType: "sft", ...defaults });
  assert.equal(sft.options, undefined);
});

test("a checkpoint is resumed with the options its loss was begun with", async (t) => {
  const outputDir = `${temporaryFolder(t)}/out`;
  const begun = { lossType: "sigmoid", beta: 2, labelSmoothing: 0.1, sftWeight: 0.5 } as const;
  const run = (change: Partial<Parameters<typeof trajectory>[0]>) =>
    runRecipe({ ...trajectory({ maxSteps: 4, ...begun, ...change }), outputDir });
  await run({ saveStrategy: "steps", saveSteps: 2 });
  const resumeFromCheckpoint = `${outputDir}/checkpoint-2`;
  const refused: [Parameters<typeof trajectory>[0], RegExp][] = [
    [{ beta: 2.5 }, /belongs to another run: beta was 2 and is now 2\.5$/],
    [{ gammaBetaRatio: 0.5 }, /: gamma_beta_ratio was 0\.25 and is now 0\.5$/],
    [{ labelSmoothing: 0 }, /: label_smoothing was 0\.1 and is now 0$/],
    [
      { sftWeight: 0 },
      /: sft_weight was 0\.5 and is now unset; per_device_train_batch_size was 2 and is now unset$/,
    ],
    // The same pairs per step, in other loss groups.
    [
      { perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 4 },
      /: per_device_train_batch_size was 2 and is now 1$/,
    ],
    [{ lossType: "hinge" }, /: loss_type was sigmoid and is now hinge$/],
  ];
  for (const [change, message] of refused) {
    await assert.rejects(run({ ...change, resumeFromCheckpoint }), (error: Error) => {
      assert.match(error.message, message);
      return true;
    });
  }
  const { steps } = await run({ resumeFromCheckpoint });
  assert.equal(steps.at(-1)!.step, 4);
});

test("a run without an SFT term may go on with another batch size, the pairs per step kept", async (t) => {
  const outputDir = `${temporaryFolder(t)}/out`;
  const run = (change: Partial<Parameters<typeof trajectory>[0]>) =>
    runRecipe({ ...trajectory({ maxSteps: 4, lossType: "hinge", ...change }), outputDir });
  await run({ saveStrategy: "steps", saveSteps: 2 });
  const change = { perDeviceTrainBatchSize: 4, gradientAccumulationSteps: 1 };
  const { steps } = await run({ ...change, resumeFromCheckpoint: `${outputDir}/checkpoint-2` });
  assert.equal(steps.at(-1)!.step, 4);
});

test("sft_weight in the recipe beside a loss of one's own is refused", async (t) => {
  const { config } = defineConfig(
    trajectory({ sftWeight: 0.5, outputDir: `${temporaryFolder(t)}/out` }),
  );
  const zero = hostPairLoss("mine", () => ({ loss: 0, dChosen: 0, dRejected: 0 }));
  await assert.rejects(train({ config, loss: zero }), (error: unknown) => {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.message, 'sft_weight is 0.5, and loss "mine" has an SFT term of weight 0');
    assert.match(error.hint!, /leave sft_weight out of the recipe/);
    return true;
  });
});

test("a loss of one's own made of ops may have an SFT term and options", async (t) => {
  const folder = temporaryFolder(t);
  const own: Loss = {
    name: "own sigmoid",
    examples: "pairs",
    wholePairs: true,
    options: { margin: 0.25 },
    sftWeight: 0.4,
    scale: ({ examples }) => 1 / examples,
    reduce: (s, mean, loss, coefficient, logp, responses, scale, tokenWeights) =>
      s.sigmoidLoss(
        mean,
        loss,
        coefficient,
        logp,
        responses,
        tokenWeights,
        scale,
        ...([2, 0.25, 0.1] as const),
      ),
  };
  const options = { lossType: "sigmoid", labelSmoothing: 0.1, sftWeight: 0.4 } as const;
  const input = { saveStrategy: "steps", saveSteps: 2, maxSteps: 3 } as const;
  const mine = await runRecipe({ ...trajectory(input), outputDir: `${folder}/own` }, { loss: own });
  const named = await runRecipe({
    ...trajectory({ ...input, ...options }),
    outputDir: `${folder}/named`,
  });
  const values = (steps: readonly MetricRecord[]) =>
    steps.map(({ loss, grad_norm, sft_loss }) => [loss, grad_norm, sft_loss]);
  assert.deepEqual(values(mine.steps), values(named.steps));
  const state = JSON.parse(readFileSync(`${folder}/own/checkpoint-2/run_state.json`, "utf8"));
  assert.deepEqual(state.lossOptions, { margin: 0.25, per_device_train_batch_size: 2 });
});
