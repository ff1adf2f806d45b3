import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { loadRecipe } from "#src/config/load.js";
import type { ZeroStage } from "#src/parallel/layout.js";
import { sentBytes, stepVolume, taskBytes } from "#src/parallel/volume.js";
import { type Collective, StepWalk } from "#src/parallel/walk.js";
import { parseAssumedPairs } from "#src/train/assumed-data.js";
import { readPlanInputs } from "#src/train/make-plan.js";
import { draftPlan, volumeOptions } from "#src/train/plan.js";
import {
  type Cluster,
  exchangeSeconds,
  firstStepWork,
  GPUS,
  LINK_SHARE,
  LINKS_BETWEEN,
  LINKS_INSIDE,
  type Link,
  PER_MACHINE,
  predictScaling,
  predictStep,
} from "#src/train/scaling.js";
import { root } from "../support/paths.js";

const { config, baseDir } = loadRecipe(path.join(root, "configs/llama-3-8b-base-simper.yaml"), [
  "--model_name_or_path",
  path.join(root, "configs", "shapes", "llama-3-8b"),
]);
const inputs = await readPlanInputs(config, baseDir, parseAssumedPairs("4096x118+291+291"));
const gpu = GPUS.h100;
const [nvlink, pcie] = LINKS_INSIDE as [Link, Link];
const [slow, fast] = LINKS_BETWEEN as [Link, Link];
const stages: ZeroStage[] = [0, 1, 2, 3];

/** A step of the 8B recipe on `size` GPUs, in one stage, with a number of pairs on all of them. */
function predict(size: number, stage: ZeroStage, cluster: Cluster, examplesPerStep?: number) {
  const ranks = { size, localSize: Math.min(size, PER_MACHINE) };
  const memory = { device: gpu.memory, machine: 1e15 };
  const recipe = { ...config, maxTokensPerMicroBatch: 16384 };
  const options = { ranks, examplesPerStep };
  const { plan } = draftPlan(recipe, inputs.shape, inputs.train, inputs.test, memory, options);
  const volume = { ...volumeOptions(config, inputs.shape, plan), stage };
  const work = firstStepWork(config, inputs, plan);
  return { volume, work, ...predictStep(config, inputs.shape, volume, work, cluster) };
}

test("scaling: one GPU is 100%, and more of them are never above it", () => {
  for (const stage of stages) {
    const cluster = { gpu, inside: nvlink, between: fast };
    assert.equal(predict(1, stage, cluster).efficiency, 1);
    for (const size of [2, 8, 64]) {
      const { efficiency } = predict(size, stage, cluster);
      assert.ok(efficiency > 0 && efficiency < 1, `${size} ${stage} ${efficiency}`);
    }
  }
});

test("scaling: a step of one GPU takes its operations at the assumed rate, and its update", () => {
  const { stepSeconds, work } = predict(1, 0, { gpu, inside: nvlink, between: fast });
  // 32 pairs of 118 + 2 · 291 tokens. Matrices of a layer: q, k, v, o, gate, up, down.
  const tokens = 32 * 700;
  const layer = 4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336;
  const keys = 32 * (118 ** 2 / 2 + 2 * (118 * 291 + 291 ** 2 / 2));
  assert.equal(work.mean.tokens, tokens);
  assert.equal(work.mean.keys, keys);
  // Forward, forward again (checkpointing), backward: twice for matrices, 2.5 times for attention.
  const body = 32 * (4 * 2 * layer * tokens + 4.5 * 4 * 4096 * keys);
  const head = 6 * 128256 * 4096 * (32 * 582);
  const seconds = (body + head) / (0.6 * 989e12) + (8030261248 * 30) / 3e12;
  assert.ok(Math.abs(stepSeconds / seconds - 1) < 1e-9, `${stepSeconds} ${seconds}`);
});

test("scaling: a faster link is never slower", () => {
  for (const stage of stages) {
    for (const size of [2, 8, 16, 64]) {
      let before = 0;
      for (const factor of [0.25, 1, 4, 1e6]) {
        const link = (of: Link) => ({ ...of, bytesPerSecond: of.bytesPerSecond * factor });
        const cluster = { gpu, inside: link(pcie), between: link(slow) };
        const { efficiency } = predict(size, stage, cluster);
        assert.ok(efficiency >= before, `${size} ${stage} ${factor}`);
        before = efficiency;
      }
      const nearer = { gpu, inside: nvlink, between: slow };
      const farther = { gpu, inside: pcie, between: slow };
      assert.ok(
        predict(size, stage, nearer).efficiency >= predict(size, stage, farther).efficiency,
      );
    }
  }
});

test("scaling: links without latency and limit cost nothing", () => {
  const ideal = { title: "ideal", bytesPerSecond: Number.POSITIVE_INFINITY, latencySeconds: 0 };
  for (const stage of stages) {
    const { efficiency } = predict(16, stage, { gpu, inside: ideal, between: ideal });
    assert.ok(Math.abs(efficiency - 1) < 1e-12, `${stage} ${efficiency}`);
  }
});

test("scaling: the bytes that take time are those of the analytic volume", () => {
  const none = { title: "none", bytesPerSecond: Number.POSITIVE_INFINITY, latencySeconds: 0 };
  const unit = { title: "unit", bytesPerSecond: 1 / LINK_SHARE, latencySeconds: 0 };
  for (const stage of stages) {
    for (const size of [2, 8, 16, 64]) {
      const { volume } = predict(size, stage, { gpu, inside: nvlink, between: fast });
      const walk = new StepWalk({ ...volume, layers: volume.blocks.length - 1 });
      walk.step();
      const perGpu = new Map<Collective, number>();
      for (const task of walk.step()) {
        if (task.stream !== "comm") continue;
        const bytes = taskBytes(task, volume);
        const inside = exchangeSeconds(task.op, bytes, size, { inside: unit, between: none });
        // What a machine's link carries is sent by all of its GPUs.
        const between = exchangeSeconds(task.op, bytes, size, { inside: none, between: unit });
        const all = inside + between / Math.min(size, PER_MACHINE);
        const large = task.exchange === "weights" || task.exchange === "gradients";
        if (large) {
          assert.ok(Math.abs(all / sentBytes(task.op, bytes, size, 0) - 1) < 1e-12);
        }
        perGpu.set(task.op, (perGpu.get(task.op) ?? 0) + all);
      }
      for (const { op, bytes } of stepVolume(volume)) {
        // An all-reduce of few numbers is rounded to whole ones.
        assert.ok(Math.abs(perGpu.get(op)! / bytes - 1) < 0.05, `${stage} ${size} ${op}`);
      }
    }
  }
});

test("scaling: the step that grows with the GPUs waits less than the step that stays", () => {
  const cluster = { gpu, inside: nvlink, between: fast };
  for (const stage of stages) {
    const grown = predict(64, stage, cluster);
    const same = predict(64, stage, cluster, 128);
    assert.ok(grown.efficiency > same.efficiency);
    assert.ok(grown.stepSeconds > same.stepSeconds);
  }
});

test("scaling: ranks without a pair are not efficient", () => {
  const ideal = { title: "ideal", bytesPerSecond: Number.POSITIVE_INFINITY, latencySeconds: 0 };
  const { efficiency, work } = predict(8, 1, { gpu, inside: ideal, between: ideal }, 4);
  assert.equal(work.most.tokens, 2 * work.mean.tokens);
  assert.ok(efficiency > 0.5 && efficiency < 0.6); // half of the compute, all of the update
});

test("scaling: the table has every number of GPUs in every stage, and says what has no room", () => {
  const { rows } = predictScaling(config, inputs, gpu, [4, 8]);
  assert.deepEqual(
    rows.map(({ gpus, stage, fits }) => [gpus, stage, fits]),
    [4, 8].flatMap((gpus) =>
      stages.map((stage) => [gpus, stage, gpus === 8 ? stage > 0 : stage > 1]),
    ),
  );
  for (const row of rows) {
    assert.equal(row.predictions.length, LINKS_INSIDE.length * LINKS_BETWEEN.length);
    assert.equal(row.pairsPerStep, 32 * row.gpus);
  }
  assert.ok(
    predictScaling(config, inputs, GPUS.h200, [4])
      .rows.slice(1)
      .every(({ fits }) => fits),
  );
});
