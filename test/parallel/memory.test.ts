import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { loadRecipe } from "#src/config/load.js";
import { makePlan } from "#src/train/make-plan.js";
import type { RunPlan } from "#src/train/plan.js";
import { makeTinyModel } from "../model/tiny.js";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import { gqaPairs, temporaryFolder, trajectoryRecipe } from "../train/support.js";

test("memory: a rank holds what its plan says, in every stage, and stages fall as they say", {
  skip: noMpi,
}, async (t) => {
  const folder = temporaryFolder(t);
  // 25 million parameters, nearly all in layers: 16 bytes of each decide, not the process around them.
  const shape = { hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 8 };
  const model = await makeTinyModel(path.join(folder, "model"), {
    config: shape,
    tokenizer: false,
  });
  const program = path.join(root, "dist-test", "parallel", "memory-rank.js");

  const measured = async (size: number, stage: number) => {
    const settings = [
      ...["--model_name_or_path", model, "--dataset_mixer", JSON.stringify({ [gqaPairs]: 1 })],
      ...["--max_steps", "4", "--zero_stage", String(stage)],
      ...["--output_dir", path.join(folder, `out-${size}-${stage}`)],
    ];
    const { config, baseDir } = loadRecipe(trajectoryRecipe, settings);
    const plan = await makePlan(config, baseDir, { ranks: { size, localSize: size } });
    const run = await runRanks<number>(size, program, [trajectoryRecipe, ...settings], {
      OMP_NUM_THREADS: "1",
    });
    assert.equal(run.code, 0, run.stderr);
    for (const [rank, peak] of run.reports.entries()) {
      const ratio = peak! / plan.totalBytes;
      t.diagnostic(
        `${size} ranks, stage ${stage}, rank ${rank}: ${mega(peak!)} MB, ${ratio.toFixed(3)} of the plan`,
      );
    }
    return { plan, peak: Math.max(...run.reports.map((bytes) => bytes!)) };
  };

  const one = await measured(1, 0);
  for (const size of [2, 4]) {
    const found: { plan: RunPlan; peak: number }[] = [];
    for (const stage of [0, 1, 2, 3]) found.push(await measured(size, stage));
    for (const [stage, { plan, peak }] of found.entries()) {
      const ratio = peak / plan.totalBytes;
      assert.ok(Math.abs(ratio - 1) < 0.15, `${size} ranks, stage ${stage}: ${ratio} of the plan`);
      if (stage === 0) continue;
      // What a stage saves against one process, as the plan has it.
      const saved = one.peak - peak;
      const planned = one.plan.totalBytes - plan.totalBytes;
      const share = saved / planned;
      assert.ok(
        Math.abs(share - 1) < 0.2,
        `${size} ranks, stage ${stage}: saves ${saved}, planned ${planned}`,
      );
    }
  }
});

function mega(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
