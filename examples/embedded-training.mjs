// A training run inside a script of one's own: a recipe written in code, progress as it happens, and an
// AbortSignal that ends the run early with a checkpoint, from which a second run goes on.
//   node examples/embedded-training.mjs
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { createJsonlReporter, defineConfig, SimperError, train } from "simper-native";

const configs = path.join(path.dirname(fileURLToPath(import.meta.url)), "../configs");
const outputDir = await mkdtemp(path.join(os.tmpdir(), "simper-embedded-"));

const recipe = {
  modelNameOrPath: path.join(configs, "quickstart/model"),
  datasetMixer: { [path.join(configs, "quickstart/data")]: 1 },
  datasetSplits: ["train"],
  outputDir,
  maxLength: 128,
  maxPromptLength: 96,
  learningRate: 5e-4,
  perDeviceTrainBatchSize: 8,
  maxSteps: 10,
  doEval: false,
  saveStrategy: "no", // an aborted run saves a checkpoint all the same
};

// The event loop is free while the device works: timers, servers and signals go on.
let ticks = 0;
const timer = setInterval(() => ticks++, 5);

/** Trains, and stops after step `last`. */
async function run(input, last) {
  const controller = new AbortController();
  return train({
    config: defineConfig(input).config,
    reporters: [createJsonlReporter()], // writes metrics.jsonl, as the command line does
    signal: controller.signal,
    onStep({ step, loss, tokens_per_second }) {
      console.log(
        `step ${step}/10  loss ${loss.toFixed(4)}  ${tokens_per_second.toFixed(0)} tokens/s`,
      );
      if (step === last) controller.abort();
    },
  });
}

try {
  const first = await run(recipe, 4);
  console.log(`stopped after step ${first.step}, interrupted: ${first.interrupted}`);
  const second = await run({ ...recipe, resumeFromCheckpoint: true });
  console.log(`went on to step ${second.step}, interrupted: ${second.interrupted}`);
  if (!(first.interrupted && !second.interrupted && ticks > 0)) throw new Error("unexpected");
} catch (error) {
  // Everything that can go wrong on purpose is a SimperError: a code, a message and often a hint.
  if (error instanceof SimperError)
    console.error(`${error.code}: ${error.message}`, error.hint ?? "");
  throw error;
} finally {
  clearInterval(timer);
  await rm(outputDir, { recursive: true });
}
