import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { noEmulator } from "../ops/harness/devices.js";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import { temporaryFolder } from "../train/support.js";
import { distance, train, type ZeroRun } from "./zero-runs.js";

// Ranks whose device is not the CPU's: the CUDA device's kernels on the emulated device, between processes that
// Open MPI connects. There the optimizer's state can lie in host memory.
const device = "emulated";
const skip = noMpi || noEmulator;
const program = path.join(root, "dist-test", "parallel", "store-rank.js");

test(`${device}: a sharded store of 2 ranks is a resident one, bit for bit`, {
  skip,
}, async () => {
  const env = { OMP_NUM_THREADS: "1", SIMPER_STORE_DEVICE: device };
  const { code, stdout, stderr } = await runRanks(2, program, [], env);
  assert.equal(code, 0, stderr);
  assert.equal(stdout.match(/^rank \d+: \d+ cases, \d+ tensors$/gm)?.length, 2, stdout);
});

test(`${device}: zero_stage 2 and 3, and offload_optimizer: the losses of one process`, {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const usual = { max_steps: 6 };
  const offloaded = { ...usual, offload_optimizer: "cpu" };
  const alone = { ranks: 1, stage: 0, split: "whole", device } as const;
  const { losses, norms } = await train({ ...alone, changes: usual }, folder);
  const runs: ZeroRun[] = [
    { ...alone, changes: offloaded },
    { ranks: 2, stage: 2, split: "cut", device, changes: usual },
    { ranks: 2, stage: 3, split: "cut", device, changes: offloaded },
    { ranks: 2, stage: 1, split: "whole", device, changes: offloaded },
  ];
  for (const run of runs) {
    const curve = await train(run, folder);
    const what = JSON.stringify(run);
    // f32 sums in another order.
    assert.ok(distance(curve.losses, losses, [1e-4, 1e-6]) <= 1, `${what}: ${curve.losses}`);
    assert.ok(distance(curve.norms, norms, [1e-4, 1e-6]) <= 1, `${what}: ${curve.norms}`);
  }
  const bf16 = { ...usual, bf16: true };
  const rounded = await train({ ...alone, changes: bf16 }, folder);
  const run = { ranks: 2, stage: 3, split: "whole", device } as const;
  const curve = await train({ ...run, changes: { ...bf16, offload_optimizer: "cpu" } }, folder);
  assert.ok(distance(curve.losses, rounded.losses, [1e-2, 1e-3]) <= 1, `${curve.losses}`);
});
