// Trains a tiny model on 1, 2, 3 and 4 ranks, in ZeRO stages 0 to 3 and with a step of 12 pairs cut in two ways, each
// twice. Every loss of the 20 steps has to be that of one process, and the same number of ranks has to give the same
// bits twice. Wants Open MPI and the compiled tests (npm run build:ts && npm run build:test). Exit code 1 if not so.
//   node scripts/zero-matrix.mjs [--ranks 1,2,3,4] [--device cpu] [--bf16]
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { distance, SPLITS, train } from "../dist-test/parallel/zero-runs.js";

const { values } = parseArgs({
  options: {
    ranks: { type: "string", default: "1,2,3,4" },
    device: { type: "string", default: "cpu" },
    bf16: { type: "boolean", default: false },
  },
});
const bound = values.bf16 ? [1e-2, 1e-3] : [1e-4, 1e-6];
const common = { device: values.device, changes: { bf16: values.bf16 } };
const folder = mkdtempSync(path.join(os.tmpdir(), "simper-zero-"));
let failed = 0;
let worst = 0;
let runs = 0;
try {
  const alone = await train({ ranks: 1, stage: 0, split: "whole", ...common }, folder);
  console.log("| ranks | stage | split | loss: share of the bound | gradient norm | twice |");
  console.log("|---|---|---|---|---|---|");
  for (const ranks of values.ranks.split(",").map(Number)) {
    for (const stage of [0, 1, 2, 3]) {
      for (const split of Object.keys(SPLITS)) {
        const run = { ranks, stage, split, ...common };
        const [first, second] = [await train(run, folder), await train(run, folder)];
        const loss = distance(first.losses, alone.losses, bound);
        const norm = distance(first.norms, alone.norms, bound);
        const same = first.digest === second.digest;
        if (!(loss <= 1) || !same) failed++;
        worst = Math.max(worst, loss);
        runs += 2;
        const cells = [ranks, stage, split, loss.toFixed(4), norm.toFixed(4)];
        console.log(`| ${cells.join(" | ")} | ${same ? "equal bits" : "DIFFERENT"} |`);
      }
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const [relative, absolute] = bound;
console.log(
  `${runs} runs, ${failed} outside; bound ${relative} relative + ${absolute}, largest share of it ${worst.toFixed(4)}`,
);
process.exitCode = failed === 0 ? 0 : 1;
