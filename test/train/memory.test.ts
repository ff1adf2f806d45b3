import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { random32 } from "#src/data/order.js";
import { makeTinyModel } from "../model/tiny.js";
import { root } from "../support/paths.js";
import { readLines, temporaryFolder, trajectoryRecipe, writeLines } from "./support.js";

/** Ragged pairs: prompts of 20 to 79 tokens, responses of 10 to 129. */
function pairRows(count: number, vocabSize: number) {
  const next = random32(7);
  const ids = (low: number, high: number) =>
    Array.from({ length: low + (next() % (high - low)) }, () => next() % vocabSize);
  return Array.from({ length: count }, () => {
    const prompt = ids(20, 80);
    const side = (name: string) => {
      const response = ids(10, 130);
      return {
        [`${name}_input_ids`]: [...prompt, ...response],
        [`${name}_labels`]: [...prompt.map(() => -100), ...response],
      };
    };
    return { ...side("chosen"), ...side("rejected") };
  });
}

function residentBytes(pid: number): number {
  try {
    const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return Number(line?.[1] ?? 0) * 1024;
  } catch {
    return 0; // gone
  }
}

test("memory: a run stays within 10% of its plan and does not grow after warm-up", async (t) => {
  const folder = temporaryFolder(t);
  const config = {
    hidden_size: 256,
    intermediate_size: 704,
    num_hidden_layers: 6,
    vocab_size: 8192,
  };
  const model = await makeTinyModel(path.join(folder, "model"), { config, tokenizer: false });
  const data = writeLines(path.join(folder, "pairs.jsonl"), pairRows(64, config.vocab_size));
  const outputDir = path.join(folder, "out");
  const settings = [
    ...["--model_name_or_path", model, "--dataset_mixer", JSON.stringify({ [data]: 1 })],
    ...[
      "--per_device_train_batch_size",
      "8",
      "--gradient_accumulation_steps",
      "1",
      "--max_steps",
      "30",
      "--save_strategy",
      "no",
    ],
    ...["--max_length", "512", "--max_prompt_length", "128", "--output_dir", outputDir],
  ];
  const cli = path.join(root, "dist", "cli.js");
  const run = (command: string, more: string[] = []) =>
    spawn(process.execPath, [cli, command, trajectoryRecipe, ...settings, ...more], {
      stdio: ["ignore", "pipe", "pipe"],
    });

  const plan = run("plan", ["--json"]);
  let text = "";
  for await (const chunk of plan.stdout) text += chunk;
  const planned = (JSON.parse(text) as { totalBytes: number }).totalBytes;

  const child = run("train");
  const ended = new Promise<number | null>((done) => child.on("exit", done));
  const seen: { step: number; bytes: number }[] = [];
  let step = 0;
  for await (const chunk of child.stderr) {
    // A line per step: logging_steps is 1 in this recipe.
    step = Number(/step (\d+)\//.exec(String(chunk))?.[1] ?? step);
    seen.push({ step, bytes: residentBytes(child.pid!) });
  }
  assert.equal(await ended, 0);
  assert.equal(readLines(path.join(outputDir, "metrics.jsonl")).length, 30);

  const most = (from: number, to: number) =>
    Math.max(...seen.filter((one) => one.step >= from && one.step <= to).map((one) => one.bytes));
  const peak = most(1, 30);
  const ratio = peak / planned;
  assert.ok(Math.abs(ratio - 1) < 0.1, `peak ${peak}, planned ${planned}, ratio ${ratio}`);
  t.diagnostic(`peak ${peak} bytes, ${ratio.toFixed(3)} of the plan`);
  // Steps 16 to 20 have seen most shapes; JavaScript's heap breathes by a few megabytes.
  const growth = most(26, 30) / most(16, 20);
  assert.ok(growth < 1.03, `memory grew by a factor of ${growth}`);
});
