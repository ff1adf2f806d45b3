import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { openSafetensors } from "#src/checkpoint/safetensors.js";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import type { Loss } from "#src/loss/index.js";
import type { DeviceName } from "#src/native/index.js";
import { createJsonlReporter, type Reporter } from "#src/report/index.js";
import type { ProfileRequest } from "#src/train/profiler.js";
import { train } from "#src/train/trainer.js";
import { fixture, root } from "../support/paths.js";

/** A folder that is removed after the test. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), "simper-train-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** One JSON value per line. */
export function readLines<T>(file: string): T[] {
  const lines = readFileSync(file, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as T);
}

export function writeLines(file: string, rows: readonly unknown[]): string {
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return file;
}

/** A tokenized preference row, as `inspect --out` writes it. */
export interface PairRow {
  readonly id: string;
  readonly chosen_input_ids: number[];
  readonly chosen_labels: number[];
  readonly rejected_input_ids: number[];
  readonly rejected_labels: number[];
}

export const gqaModel = fixture("model", "llama-gqa", "model");
/** The 14 pairs of the fixture. */
export const gqaPairs = fixture("model", "llama-gqa", "pairs.jsonl");
/** Its recipe of ten steps. */
export const trajectoryRecipe = fixture("model", "llama-gqa", "trajectory.yaml");

/** The recipe of `trajectory.yaml` in code's spelling, with changes. */
export function trajectory(changes: Partial<RecipeInput>): RecipeInput {
  return {
    modelNameOrPath: gqaModel,
    datasetMixer: { [gqaPairs]: 1 },
    shuffle: false,
    lossType: "SimPER",
    bf16: false,
    perDeviceTrainBatchSize: 2,
    gradientAccumulationSteps: 2,
    maxSteps: 10,
    learningRate: 0.002,
    lrSchedulerType: "cosine",
    warmupRatio: 0.25,
    maxGradNorm: 1,
    weightDecay: 0.1,
    maxLength: 128,
    maxPromptLength: 64,
    doEval: false,
    loggingSteps: 1,
    saveStrategy: "no",
    ...changes,
  };
}

/** A folder with a train and a test split of the fixture's pairs: all 14, and `test` of them. */
export async function splitFolder(parent: string, test: number): Promise<string> {
  const folder = path.join(parent, "data");
  await mkdir(folder, { recursive: true });
  const rows = readLines<PairRow>(gqaPairs);
  writeLines(path.join(folder, "train.jsonl"), rows);
  writeLines(path.join(folder, "test.jsonl"), rows.slice(0, test));
  return folder;
}

export type MetricRecord = Record<string, number> & { step: number };

/** Runs a recipe in this process; `watch` sees what happens, too. */
export async function runRecipe(
  input: RecipeInput & { outputDir: string },
  options: {
    watch?: Partial<Reporter>;
    signal?: AbortSignal;
    device?: DeviceName;
    threads?: number;
    loss?: Loss;
    profile?: ProfileRequest;
  } = {},
) {
  const notices: string[] = [];
  const silent: Reporter = { start() {}, step() {}, eval() {}, notice() {}, end() {} };
  const watch: Reporter = { ...silent, notice: (text) => notices.push(text), ...options.watch };
  const summary = await train({
    config: defineConfig(input).config,
    device: options.device ?? "cpu",
    reporters: [createJsonlReporter(), watch],
    ...(options.loss ? { loss: options.loss } : {}),
    ...(options.signal ? { signal: options.signal } : {}),
    ...(options.profile ? { profile: options.profile } : {}),
    ...(options.threads ? { threads: options.threads } : {}),
  });
  return { summary, notices, ...outputOf(input.outputDir) };
}

/** What a run left in its folder. */
export function outputOf(outputDir: string) {
  const records = readLines<MetricRecord>(path.join(outputDir, "metrics.jsonl"));
  const steps = records.filter((record) => "loss" in record);
  const evals = records.filter((record) => "eval_loss" in record);
  return { records, steps, evals, outputDir };
}

/** Records without what a clock decides. */
export function withoutTimes(records: readonly MetricRecord[]): object[] {
  const clock = /step_time|_per_second|runtime/;
  return records.map((record) =>
    Object.fromEntries(Object.entries(record).filter(([name]) => !clock.test(name))),
  );
}

/** Bytes of the final weights. */
export function weightBytes(outputDir: string): Buffer {
  return readFileSync(path.join(outputDir, "model.safetensors"));
}

/** Every tensor of a file or model folder, widened to f32, with the dtype it is stored in. */
export async function readTensors(fileOrFolder: string) {
  const file = await openSafetensors(fileOrFolder);
  try {
    const tensors = new Map<
      string,
      { dtype: string; shape: readonly number[]; values: Float32Array }
    >();
    for (const name of file.names()) {
      const { dtype, shape, byteLength } = file.info(name);
      const bytes = new Uint8Array(byteLength);
      await file.read(name, 0, byteLength, bytes);
      tensors.set(name, { dtype, shape, values: widen(bytes, dtype) });
    }
    return tensors;
  } finally {
    await file.close();
  }
}

function widen(bytes: Uint8Array, dtype: string): Float32Array {
  if (dtype === "F32") return new Float32Array(bytes.buffer);
  if (dtype === "I16") return Float32Array.from(new Int16Array(bytes.buffer));
  if (dtype !== "BF16") throw new Error(`a test reads F32, BF16 and I16, not ${dtype}`);
  // bf16 is the upper half of an f32.
  const bits = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
  return new Float32Array(bits.buffer);
}

/** Steps of the checkpoints in a folder, ascending. */
export function checkpointSteps(outputDir: string): number[] {
  if (!existsSync(outputDir)) return [];
  return readdirSync(outputDir)
    .flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

const cliFile = path.join(root, "dist", "cli.js");

/** Starts the command line in a process of its own. */
export function startCli(words: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child: ChildProcess = spawn(process.execPath, [cliFile, ...words], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: "", stderr: "" };
  const waiting: { pattern: RegExp; found: () => void }[] = [];
  for (const name of ["stdout", "stderr"] as const) {
    child[name]!.setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
      for (const { pattern, found } of waiting) {
        if (pattern.test(output.stdout) || pattern.test(output.stderr)) found();
      }
    });
  }
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal }));
  });
  /** Resolves when the output matches, or the process has ended. */
  const printed = (pattern: RegExp) =>
    Promise.race([new Promise<void>((found) => waiting.push({ pattern, found })), ended]);
  return { child, output, ended, printed };
}

/** Runs the command line to its end. */
export async function runCli(words: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { output, ended } = startCli(words, env);
  const { code } = await ended;
  return { code, ...output };
}

/** Recipe keys as words of a command line. */
export function words(settings: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)]);
}
