import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import { createOrder } from "#src/data/order.js";
import { packRanks } from "#src/data/pack-ranks.js";
import { ConfigError, MemoryError } from "#src/errors.js";
import { readModelShape } from "#src/model/index.js";
import { elementCount } from "#src/native/index.js";
import type { Volume } from "#src/parallel/volume.js";
import { assumedData, noData, parseAssumedPairs } from "#src/train/assumed-data.js";
import { loadExamples } from "#src/train/examples.js";
import {
  type AvailableMemory,
  draftPlan,
  modelBlocks,
  type PlanOptions,
  type RunPlan,
} from "#src/train/plan.js";
import { root } from "../support/paths.js";
import { gqaModel, runCli, trajectory } from "./support.js";

const shape = readModelShape(await readConfigFile(gqaModel));
const { config: fixtureConfig } = defineConfig(trajectory({}));
const data = await loadExamples(fixtureConfig, shape.vocabSize, {
  modelDir: gqaModel,
  baseDir: ".",
  needTest: false,
});

function draft(
  changes: Partial<RecipeInput>,
  options: PlanOptions = {},
  memory: AvailableMemory = { machine: 64e9 },
) {
  const { config } = defineConfig(trajectory(changes));
  return draftPlan(config, shape, data.train, data.test, memory, options);
}

const ranks = (size: number, localSize = size) => ({ ranks: { size, localSize } });

test("plan: a step of several ranks has as many times the pairs, in the micro-batches that the run packs", () => {
  const { plan: one } = draft({ maxTokensPerMicroBatch: 200 });
  assert.equal(one.examplesPerStep, 4);
  for (const size of [2, 3, 4]) {
    const { plan } = draft({ maxTokensPerMicroBatch: 200 }, ranks(size));
    assert.equal(plan.examplesPerStep, 4 * size);
    assert.equal(plan.stepsPerEpoch, Math.ceil(data.train.count / (4 * size)));
    const order = createOrder({ count: 14, perStep: 4 * size, shuffle: false, seed: 42 });
    const counts = Array.from({ length: plan.stepsPerEpoch }, (_, step) => {
      const lengths = order(step).map((i) => data.train.computedTokens[i]!);
      const packed = packRanks(lengths, { maxTokens: plan.limits.tokens, ranks: size });
      for (const batch of packed.flat()) {
        const tokens = batch.reduce((sum, i) => sum + lengths[i]!, 0);
        assert.ok(tokens <= plan.limits.tokens && batch.length <= plan.limits.examples);
      }
      return packed[0]!.length;
    });
    assert.equal(plan.slots.most, Math.max(...counts));
    assert.ok(plan.slots.mean <= plan.slots.most && plan.slots.mean >= Math.min(...counts));
    // Results of all ranks have their places on each.
    assert.ok(plan.limits.stepExamples >= 4 * size);
  }
});

test("plan: a checkpoint's pairs per step and tokens stay, on any number of ranks", () => {
  const { plan } = draft({}, { ...ranks(4), examplesPerStep: 6, tokens: 512 });
  assert.equal(plan.examplesPerStep, 6);
  assert.equal(plan.limits.tokens, 512);
});

test("plan: what a stage shares is a rank's part of it; what it does not is whole", () => {
  const size = 4;
  const { plan } = draft({ bf16: true, zeroStage: 2 }, ranks(size));
  assert.equal(plan.zeroStage, 2);
  const blocks = modelBlocks(shape).map(({ parameters }) => {
    const up = (n: number, unit: number) => Math.ceil(n / unit) * unit;
    return up(
      parameters.reduce((sum, one) => sum + up(elementCount(one.shape), 32), 0),
      32 * size,
    );
  });
  const sum = (counts: readonly number[]) => counts.reduce((a, b) => a + b, 0);
  const [layers, edge] = [sum(blocks.slice(0, -1)), blocks.at(-1)!];
  const all = layers + edge;
  // Slots of the two places that layers take turns in.
  const turns = 2 * Math.max(...blocks.slice(0, -1));
  const want = [
    { weights: 2 * all, "master weights": 4 * all, gradients: 4 * all, "Adam moments": 8 * all },
    { weights: 2 * all, "master weights": all, gradients: 4 * all, "Adam moments": 2 * all },
    {
      weights: 2 * all,
      "master weights": all,
      gradients: layers + 4 * edge,
      "gradients being summed": 4 * turns,
      "Adam moments": 2 * all,
    },
    {
      weights: layers / 2 + 2 * edge,
      "gathered weights": 2 * turns,
      "master weights": all,
      gradients: layers + 4 * edge,
      "gradients being summed": 4 * turns,
      "Adam moments": 2 * all,
    },
  ];
  for (const { stage, lines } of plan.stages) {
    const got = Object.fromEntries(lines.map(({ name, bytes }) => [name, bytes]));
    assert.deepEqual(Object.entries(got).sort(), Object.entries(want[stage]!).sort());
  }
  // The table is that of the run's own stage.
  assert.equal(plan.totalBytes, plan.stages[2]!.totalBytes);
  assert.deepEqual(plan.lines.slice(0, 5), plan.stages[2]!.lines);
});

test("plan: the ranks of a machine divide its memory, those of others do not", () => {
  const need = draft({}, ranks(4)).plan.totalBytes / 0.85;
  const tight = (localSize: number) => draft({}, ranks(4, localSize), { machine: 2.1 * need });
  assert.equal(tight(2).shortage, undefined);
  // A smaller micro-batch would still be a rank of four.
  const { shortage } = draft({}, ranks(4), { machine: 1e8 });
  assert.ok(shortage instanceof MemoryError);
  assert.match(
    shortage.message,
    /^a rank of the run needs 0\.\d+ GB, and 85% of this machine's share for one of 4 ranks, 0\.03 GB may be used; largest: /,
  );
  assert.match(shortage.hint!, /bf16: true, zero_stage: 2, .*more ranks on more machines$/);
});

test("plan: optimizer state in host memory is no memory of the device", () => {
  const memory = { machine: 64e9, device: 8e9 };
  const host = draft({ offloadOptimizer: "cpu", bf16: true }, ranks(2), memory).plan;
  const device = draft({ bf16: true }, ranks(2), memory).plan;
  const lifetime = (plan: RunPlan, name: string) =>
    plan.lines.find((line) => line.name === name)!.lifetime;
  for (const name of ["master weights", "Adam moments"]) {
    assert.equal(lifetime(host, name), "process");
    assert.equal(lifetime(device, name), "model and optimizer");
  }
  // Without memory of its own there is nothing to move out of.
  assert.deepEqual(
    draft({ offloadOptimizer: "cpu" }, ranks(2)).plan.lines,
    draft({}, ranks(2)).plan.lines,
  );
});

const recipe8b = path.join(root, "configs", "llama-3-8b-base-simper.yaml");
const args8b = [
  ...[recipe8b, "--model_name_or_path", path.join(root, "configs", "shapes", "llama-3-8b")],
  ...["--assume", "61135x118+291+291"],
];
const noAddon = { SIMPER_NATIVE_BINDING: "/nonexistent" };

test("plan: a recipe that does not fit shows its tables, then the error", async () => {
  const stage0 = ["--nproc", "8", "--gpu", "h100", "--zero_stage", "0"];
  const { code, stdout, stderr } = await runCli(["plan", ...args8b, ...stage0], noAddon);
  assert.equal(code, 1);
  assert.match(stdout, /^model and optimizer +weights +bf16 +\(8030261248\) +16060\.5$/m);
  assert.match(stdout, /^total of one rank +\d+\.\d$/m);
  assert.match(
    stdout,
    /^MB of one of 8 ranks +zero_stage 0 +zero_stage 1 +zero_stage 2 +zero_stage 3$/m,
  );
  assert.match(stdout, /^ +does not fit +fits +fits +fits$/m);
  assert.match(stdout, /^examples per step +256$/m);
  assert.match(
    stderr,
    /a rank of the run needs 14\d\.\d+ GB, and 92% of the device's free 83\.00 GB may be used; largest: Adam moments 64\.24 GB/,
  );
  assert.match(stderr, /try zero_stage: 1, offload_optimizer: cpu, a smaller max_length/);
});

test("plan: --json is one object, with the bytes that a rank sends", async () => {
  const more = ["--nproc", "8", "--nnodes", "2", "--gpu", "h100", "--zero_stage", "3", "--json"];
  const { code, stdout, stderr } = await runCli(["plan", ...args8b, ...more], noAddon);
  assert.equal(code, 0, stderr);
  const plan = JSON.parse(stdout) as RunPlan & { volume: Volume[] };
  assert.deepEqual(plan.ranks, { size: 16, localSize: 8 });
  assert.equal(plan.examplesPerStep, 512);
  assert.equal(plan.stages.length, 4);
  const sent = Object.fromEntries(plan.volume.map(({ op, bytes }) => [op, bytes]));
  // Layers in every micro-batch, f32, and the edge once; the parameters of this shape need no padding.
  const [edge, layers] = [1050677248, 8030261248 - 1050677248];
  assert.equal(sent.reduce_scatter, (15 / 16) * 4 * (plan.slots.most * layers + edge));
  const gathers = edge + (layers / 32) * (2 + plan.slots.most * 60);
  assert.equal(sent.all_gather, (15 / 16) * 2 * gathers);
});

test("plan: --assume, --nproc and --nnodes say what they expect", async () => {
  for (const text of ["100", "100x1+2", "0x1+2+3", "100x1+2+0", "axb+c+d"]) {
    assert.throws(
      () => parseAssumedPairs(text),
      (error: unknown) => {
        assert.ok(error instanceof ConfigError);
        assert.equal(
          error.message,
          `--assume: expected pairs x prompt + chosen + rejected tokens, all above 0, received "${text}"`,
        );
        assert.equal(error.hint, "such as 60000x120+300+300");
        return true;
      },
    );
  }
  const none = await runCli(["plan", ...args8b, "--nproc", "0"], noAddon);
  assert.equal(none.code, 2);
  assert.match(none.stderr, /expected --nproc and --nnodes of 1 or more, received 0 and 1/);
  const sft = await runCli(["plan", ...args8b, "--loss_type", "sft"], noAddon);
  assert.equal(sft.code, 2);
  assert.match(sft.stderr, /--assume: expected a loss on pairs, received loss_type sft/);
});

test("plan: assumed pairs count as pairs of those lengths do", () => {
  const facts = assumedData(parseAssumedPairs("10x5+7+9"), true);
  assert.deepEqual([...facts.computedTokens], Array(10).fill(21));
  assert.deepEqual([...facts.scoredTokens], Array(10).fill(16));
  assert.equal(facts.longestSequence, 14);
  assert.equal(assumedData(parseAssumedPairs("10x5+7+9"), false).computedTokens[0], 26);
  assert.equal(noData.count, 0);
});
