import assert from "node:assert/strict";
import { test } from "node:test";
import { noMpi } from "../support/ranks.js";
import { temporaryFolder } from "../train/support.js";
import { type Curve, distance, train, type ZeroRun } from "./zero-runs.js";

// Whole runs of the command line: 20 steps of 12 pairs, every second one of 2, so that ranks have nothing to do. The
// whole matrix, with 3 ranks and every run twice, is scripts/zero-matrix.mjs.

/** f32: other ranks and micro-batches are another order of the same sums, carried through twenty updates. */
const F32 = [1e-4, 1e-6] as const;
/** bf16: gradients of rounded activations are the same, and so are their sums but for f32's order. */
const BF16 = [1e-2, 1e-3] as const;

const once: Omit<ZeroRun, "ranks">[] = [
  { stage: 0, split: "cut" },
  { stage: 1, split: "whole" },
  { stage: 2, split: "cut" },
  { stage: 3, split: "cut" },
];
for (const ranks of [2, 4]) {
  test(`zero_stage 0 to 3 on ${ranks} ranks: the losses of one process, and the same bits twice`, {
    skip: noMpi,
  }, async (t) => {
    const folder = temporaryFolder(t);
    const alone = await train({ ranks: 1, stage: 0, split: "whole" }, folder);
    assert.equal(alone.losses.length, 20);
    const curves: Curve[] = [];
    for (const run of once) {
      const curve = await train({ ...run, ranks }, folder);
      const what = JSON.stringify(run);
      assert.ok(distance(curve.losses, alone.losses, F32) <= 1, `${what}: ${curve.losses}`);
      assert.ok(distance(curve.norms, alone.norms, F32) <= 1, `${what}: ${curve.norms}`);
      curves.push(curve);
    }
    const again = await train({ ...once[3]!, ranks }, folder);
    assert.equal(again.digest, curves[3]!.digest);
  });
}

test("zero_stage 3 in bf16, with checkpointing and clipping on 2 ranks follows one process", {
  skip: noMpi,
}, async (t) => {
  const folder = temporaryFolder(t);
  const changes = { bf16: true, gradient_checkpointing: true, max_grad_norm: 0.5 };
  const alone = await train({ ranks: 1, stage: 0, split: "whole", changes }, folder);
  const curve = await train({ ranks: 2, stage: 3, split: "whole", changes }, folder);
  assert.ok(distance(curve.losses, alone.losses, BF16) <= 1, `${curve.losses}, ${alone.losses}`);
});
