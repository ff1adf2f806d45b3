import { readFileSync } from "node:fs";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import { isReported } from "#src/errors.js";
import type { DeviceName } from "#src/native/index.js";
import { ranksFromEnvironment } from "#src/parallel/ranks.js";
import {
  createJsonlReporter,
  type EvalRecord,
  type Reporter,
  type RunSummary,
  type StepRecord,
} from "#src/report/index.js";
import type { ProfileRequest } from "#src/train/profiler.js";
import { train } from "#src/train/trainer.js";
import { report } from "../support/ranks.js";

/** What a rank of this program is asked to do, in a JSON file. */
export interface RankTask {
  readonly recipe: RecipeInput & { outputDir: string };
  /** This rank is asked to stop, or fails, once it is told of this step. */
  readonly stop?: { readonly rank: number; readonly step: number };
  readonly fail?: { readonly rank: number; readonly step: number };
  /** The recipe of one rank is another one. */
  readonly other?: { readonly rank: number; readonly changes: Partial<RecipeInput> };
  readonly profile?: ProfileRequest;
  /** Default: cpu. */
  readonly device?: DeviceName;
}

/** What it tells the test: what its callbacks saw, and how the run ended. */
export interface RankReport {
  readonly steps: StepRecord[];
  readonly evals: EvalRecord[];
  /** Of the reporters it gave: how many calls. */
  reporterCalls: number;
  readonly notices: string[];
  summary?: RunSummary;
  error?: { readonly name: string; readonly message: string; readonly reported: boolean };
}

// Started by mpirun as `rank.js task.json`, once for each rank.
const task = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as RankTask;
const { rank } = ranksFromEnvironment(process.env);
const stop = new AbortController();
const found: RankReport = { steps: [], evals: [], reporterCalls: 0, notices: [] };
const count = () => {
  found.reporterCalls++;
};
const watch: Reporter = {
  start: count,
  step: count,
  eval: count,
  end: count,
  notice: (text) => {
    found.notices.push(text);
  },
};
const changes = task.other?.rank === rank ? task.other.changes : {};
try {
  found.summary = await train({
    config: defineConfig({ ...task.recipe, ...changes }).config,
    device: task.device ?? "cpu",
    threads: 1,
    reporters: [createJsonlReporter(), watch],
    ...(task.profile && { profile: task.profile }),
    onStep: (record) => {
      found.steps.push(record);
      if (task.stop?.rank === rank && task.stop.step === record.step) stop.abort();
      if (task.fail?.rank === rank && task.fail.step === record.step) throw new Error("enough");
    },
    onEval: (record) => {
      found.evals.push(record);
    },
    signal: stop.signal,
  });
} catch (error) {
  const { name, message } = error as Error;
  found.error = { name, message, reported: isReported(error) };
}
report(rank, found);
if (found.error) process.exit(1);
