// A loss of one's own, written in JavaScript, trained with for a few steps on the quickstart's model.
//   node examples/custom-loss.mjs
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { hostPairLoss, loadRecipe, train } from "simper-native";

// SimPER with a margin: once the chosen response is `margin` more probable than the rejected one (in inverse
// perplexity, p = exp(mean log-probability)), a pair asks for nothing more.
//   loss = max(0, margin − (p_chosen − p_rejected)),   d p / d mean = p
const margin = 0.5;
let satisfied = 0;
const marginSimper = hostPairLoss("margin simper", ({ chosen, rejected }) => {
  const [p, q] = [Math.exp(chosen.mean), Math.exp(rejected.mean)];
  const missing = margin - (p - q);
  if (missing > 0) return { loss: missing, dChosen: -p, dRejected: q };
  satisfied++;
  return { loss: 0, dChosen: 0, dRejected: 0 };
});

const here = path.dirname(fileURLToPath(import.meta.url));
const outputDir = await mkdtemp(path.join(os.tmpdir(), "simper-custom-loss-"));
try {
  const { config, baseDir } = loadRecipe(path.join(here, "../configs/quickstart.yaml"), [
    ...["--max_steps", "10", "--eval_strategy", "no", "--eval_on_start", "true"],
    ...["--warmup_ratio", "0", "--output_dir", outputDir],
  ]);
  const evaluations = [];
  await train({
    config,
    baseDir,
    loss: marginSimper,
    onStep: ({ step, loss }) => console.log(`step ${step}  loss ${loss.toFixed(4)}`),
    onEval(record) {
      evaluations.push(record.eval_loss);
      console.log(`on held-out pairs after ${record.step} steps: ${record.eval_loss.toFixed(4)}`);
    },
  });
  console.log(`a pair had enough of a margin ${satisfied} times`);
  if (!(evaluations.at(-1) < evaluations[0])) throw new Error("the loss did not go down");
} finally {
  await rm(outputDir, { recursive: true });
}
