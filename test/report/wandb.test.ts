import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { recipeReporters } from "#src/report/index.js";
import { createWandbReporter, findWandb } from "#src/report/wandb.js";
import { evaluation, record, run } from "./records.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-wandb-"));
after(() => rmSync(dir, { recursive: true }));
const fresh = () => mkdtempSync(path.join(dir, "bin-"));

function script(folder: string, name: string, text: string): string {
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, name);
  writeFileSync(file, text);
  chmodSync(file, 0o755);
  return file;
}

/** A program that stands for a Python with wandb: it keeps what it is given, and says where the run is. */
function python(folder: string, body: string): string {
  const program = `#!${process.execPath}
const fs = require("node:fs");
if (process.argv[3].startsWith("import importlib")) process.exit(0);
${body}
`;
  return script(folder, "python3", program);
}

const keeps = (file: string) => `
console.log("https://wandb.example/run");
process.stdin.on("data", (text) => fs.appendFileSync(${JSON.stringify(file)}, text));
`;

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await setTimeout(10);
  assert.ok(condition(), "waited for 10 seconds");
}

test("wandb: the process is told how to begin, then every line as transformers logs it", async () => {
  const folder = fresh();
  const received = path.join(folder, "received");
  const notices: string[] = [];
  const reporter = createWandbReporter({
    python: python(folder, keeps(received)),
    project: "huggingface",
    config: { learningRate: 1e-6 },
    notice: (text) => notices.push(text),
  });
  reporter.start({ ...run("outputs/x"), runName: "mine" });
  for (let step = 1; step <= 4; step++) reporter.step(record(step));
  reporter.eval(evaluation(4));
  reporter.end({ step: 4, interrupted: false, seconds: 1 });
  const lines = (): Record<string, unknown>[] => {
    try {
      const text = readFileSync(received, "utf8").split("\n").slice(0, -1);
      return text.map((line) => JSON.parse(line) as Record<string, unknown>);
    } catch {
      return []; // nothing yet
    }
  };
  await until(() => lines().length === 4 && notices.length === 1);
  const [first, step, evaluated, end] = lines();
  assert.deepEqual(first, {
    project: "huggingface",
    name: "mine",
    dir: "outputs/x",
    config: { learningRate: 1e-6, resumed_step: 0 },
  });
  assert.equal(step!["train/global_step"], 4);
  assert.ok(Math.abs((step!["train/loss"] as number) + 0.025) < 1e-12);
  assert.deepEqual(evaluated, {
    "eval/loss": -0.5,
    "eval/rewards/accuracies": 0.75,
    "eval/rewards/margins": 0.25,
    "train/global_step": 4,
  });
  assert.deepEqual(end, { "train/train_runtime": 1, "train/global_step": 4 });
  assert.deepEqual(notices, ["wandb: https://wandb.example/run"]);
});

test("wandb: a process that fails is told of once, with its last words, and ends nothing", async () => {
  const notices: string[] = [];
  const reporter = createWandbReporter({
    python: python(fresh(), 'console.error("Traceback\\nUsageError: no API key");process.exit(1)'),
    project: "p",
    config: {},
    notice: (text) => notices.push(text),
  });
  reporter.start({ ...run("o"), loggingSteps: 1 });
  await until(() => notices.length > 0);
  for (let step = 1; step <= 3; step++) reporter.step(record(step));
  reporter.end({ step: 3, interrupted: false, seconds: 1 });
  await setTimeout(50);
  assert.deepEqual(notices, ["wandb ended early, the training goes on: UsageError: no API key"]);
});

test("wandb: the interpreter of an installed command is used, else the python3 on PATH", () => {
  const venv = path.join(fresh(), "venv");
  const inner = python(venv, "");
  const bin = fresh();
  script(bin, "wandb", `#!${inner}\nimport wandb\n`);
  const other = fresh();
  const onPath = python(other, "");
  const PATH = [bin, other].join(path.delimiter);
  assert.equal(findWandb({ PATH }), inner);
  assert.equal(findWandb({ PATH: other }), onPath);
  assert.equal(findWandb({ PATH: fresh() }), undefined);
  // A Python without the package is none.
  const without = fresh();
  script(without, "python3", "#!/bin/sh\nexit 1\n");
  assert.equal(findWandb({ PATH: without }), undefined);
});

test("report_to: wandb that is not installed is a notice, event files and a run that it can upload", () => {
  const outputDir = fresh();
  const options = { reportTo: ["wandb"] as ["wandb"], loggingDir: null, project: "p", outputDir };
  const missing = recipeReporters(options, assert.fail, {}, () => undefined);
  assert.equal(missing.reporters.length, 2);
  assert.equal(missing.notices.length, 1);
  assert.match(
    missing.notices[0]!,
    /^report_to: wandb is not installed here; to upload the run where it is: wandb sync .*\/wandb\/offline-run-\d{8}_\d{6}-[0-9a-z]{8}$/,
  );
  const there = recipeReporters(options, assert.fail, {}, () => "/usr/bin/python3");
  assert.deepEqual([there.reporters.length, there.notices], [2, []]);
});
