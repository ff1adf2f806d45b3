// Trains the quickstart's small model with SimPER and shows, on held-out prompts, what it gained.
//
//   npm run quickstart
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { toJsonl } from "./make-data.mjs";
import { dataDir, isMain, modelDir, recipe, root } from "./paths.mjs";
import { accuracies, compare, table } from "./report.mjs";

const outputDir = path.join(root, "outputs", "quickstart");

/** Points that both numbers must rise by; less means that something is broken. */
const LEAST_GAIN = 10;

/** Runs one command of the CLI and ends this process with its exit code when it fails. @param {string[]} args */
function simperNative(...args) {
  console.error(
    `\n$ npx simper-native ${args.map((arg) => path.relative(root, arg) || arg).join(" ")}`,
  );
  const cli = path.join(root, "dist", "cli.js");
  const run = spawnSync(process.execPath, [cli, ...args], { stdio: "inherit", cwd: root });
  if (run.error !== undefined) throw run.error;
  if (run.signal !== null) process.exit(130);
  if (run.status !== 0) process.exit(run.status ?? 1);
}

/** @param {string} file @returns {any[]} */
function readJsonl(file) {
  const lines = readFileSync(file, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line));
}

/** Greedy answers of a model to the prompts. @param {string} model @param {string} prompts @param {string} out @returns {string[]} */
function answers(model, prompts, out) {
  const limits = ["--greedy", "--max_new_tokens", "32"];
  simperNative("generate", "--model", model, "--prompts", prompts, ...limits, "--out", out);
  return readJsonl(out).map((row) => row.text);
}

function main() {
  if (!existsSync(path.join(root, "dist", "cli.js"))) {
    console.error(
      "quickstart: dist/cli.js not found, expected the compiled CLI; run: npm run build",
    );
    process.exit(2);
  }
  const began = performance.now();
  const work = path.join(outputDir, "answers");
  mkdirSync(work, { recursive: true });

  const tasks = readJsonl(path.join(dataDir, "test.jsonl"));
  const prompts = path.join(work, "prompts.jsonl");
  const questions = tasks.map((task) => ({ messages: [{ role: "user", content: task.prompt }] }));
  writeFileSync(prompts, toJsonl(questions));

  const before = answers(modelDir, prompts, path.join(work, "before.jsonl"));
  simperNative("train", recipe);
  const after = answers(outputDir, prompts, path.join(work, "after.jsonl"));

  const result = compare(tasks, before, after);
  const accuracy = accuracies(readJsonl(path.join(outputDir, "metrics.jsonl")));
  const seconds = Math.round((performance.now() - began) / 1000);
  console.log(`\n${table(tasks.length, accuracy, result)}`);
  console.log(`\nAll of it took ${seconds} s. The trained model is in ${path.relative(root, outputDir)}: it
loads in transformers, and answers here with

  npx simper-native generate --model ${path.relative(root, outputDir)} --prompts ${path.relative(root, prompts)} --greedy

To train your own model, copy ${path.relative(root, recipe)} and set model_name_or_path and dataset_mixer.`);

  const gains = [accuracy.after - accuracy.before, result.after - result.before];
  if (gains.some((gain) => 100 * gain < LEAST_GAIN)) {
    console.error(`quickstart: expected both numbers to rise by at least ${LEAST_GAIN} points`);
    process.exit(1);
  }
}

if (isMain(import.meta.url)) main();
