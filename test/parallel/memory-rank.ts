import { readFileSync } from "node:fs";
import { loadRecipe } from "#src/config/load.js";
import { ranksFromEnvironment } from "#src/parallel/ranks.js";
import { train } from "#src/train/trainer.js";
import { report } from "../support/ranks.js";

// One rank of a training run, or all of it, that reports the most memory it has held before it saves anything.
// Arguments: recipe and overrides.

const [recipe, ...overrides] = process.argv.slice(2) as [string, ...string[]];
const { config, baseDir } = loadRecipe(recipe, overrides);

/** The most memory that this process has held, in bytes. */
function peak(): number {
  const line = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"));
  return 1024 * Number(line![1]);
}

let most = 0;
await train({
  config,
  baseDir,
  device: "cpu",
  onStep: () => {
    most = peak();
  },
});
report(ranksFromEnvironment(process.env).rank, most);
