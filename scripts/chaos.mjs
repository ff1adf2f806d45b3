// Kills a training run at random moments, in steps and in saves, and resumes it, again and again. After every
// kill each checkpoint is read to its last byte and compared with what an undisturbed run has at that step;
// no checkpoint may be lost; metrics and final weights must equal the undisturbed run's. Exit code 1 if not.
//   node scripts/chaos.mjs [--kills 200] [--steps 40] [--seed n]
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  watch as watchFolder,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openSafetensors } from "../dist/checkpoint/safetensors.js";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const fixture = path.join(root, "test/fixtures/model/llama-gqa");
const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "200" },
    steps: { type: "string", default: "40" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});
const kills = Number(values.kills);
const steps = Number(values.steps);
let state = Number(values.seed) >>> 0;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
const folder = mkdtempSync(path.join(os.tmpdir(), "simper-chaos-"));

/** Starts the run, or goes on with it. */
function start(outputDir) {
  const settings = {
    model_name_or_path: path.join(fixture, "model"),
    shuffle: true,
    max_steps: steps,
    save_strategy: "steps",
    save_steps: 1,
    resume_from_checkpoint: true,
    output_dir: outputDir,
  };
  const words = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const command = [
    path.join(root, "dist/cli.js"),
    "train",
    path.join(fixture, "trajectory.yaml"),
    ...words,
  ];
  const child = spawn(process.execPath, command, { stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, stderr }));
  return { child, ended };
}

const stepsOf = (dir) =>
  (existsSync(dir) ? readdirSync(dir) : [])
    .flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);

const CLOCK = /"(step_time|train_runtime|\w+_per_second|\w*runtime)":\s*[-\d.e]+,?/g;

/** A digest of every file of a checkpoint, without what a clock decides; safetensors are read as such first. */
async function digests(dir) {
  const found = {};
  for (const name of readdirSync(dir).sort()) {
    const file = path.join(dir, name);
    if (name.endsWith(".safetensors")) {
      const tensors = await openSafetensors(file);
      for (const tensor of tensors.names()) for await (const _ of tensors.chunks(tensor));
      await tensors.close();
    }
    const bytes = readFileSync(file);
    const text = name.endsWith(".json")
      ? JSON.stringify(JSON.parse(bytes)).replace(CLOCK, "")
      : bytes;
    found[name] = createHash("sha256").update(text).digest("hex");
  }
  return found;
}

const metrics = (dir) => readFileSync(path.join(dir, "metrics.jsonl"), "utf8").replace(CLOCK, "");

async function main() {
  const calm = path.join(folder, "calm");
  const { code, stderr } = await start(calm).ended;
  assert.equal(code, 0, stderr);
  const expected = new Map();
  for (const step of stepsOf(calm))
    expected.set(step, await digests(path.join(calm, `checkpoint-${step}`)));
  assert.equal(expected.size, steps);

  const counts = { loading: 0, step: 0, save: 0, final: 0, checked: 0, runs: 0 };
  let outputDir = "";
  let known = [];
  let done = 0;
  while (done < kills) {
    if (outputDir === "") {
      outputDir = path.join(folder, `run-${counts.runs++}`);
      known = [];
    }
    const run = start(outputDir);
    const moment = await kill(run, outputDir);
    const { signal, code, stderr } = await run.ended;
    if (signal === "SIGKILL") {
      done++;
      counts[moment]++;
    } else {
      assert.equal(code, 0, stderr);
    }
    const now = stepsOf(outputDir);
    for (const step of known)
      assert.ok(now.includes(step), `kill ${done}: checkpoint-${step} is lost`);
    known = now;
    for (const step of now) {
      assert.deepEqual(
        await digests(path.join(outputDir, `checkpoint-${step}`)),
        expected.get(step),
        `kill ${done} (${moment}): checkpoint-${step} is another one than without kills`,
      );
      counts.checked++;
    }
    if (signal !== "SIGKILL") {
      finish(outputDir, calm);
      outputDir = "";
    }
    if (done % 20 === 0) console.log(`${done} kills: ${JSON.stringify(counts)}`);
  }
  if (outputDir !== "") {
    const { code, stderr } = await start(outputDir).ended;
    assert.equal(code, 0, stderr);
    finish(outputDir, calm);
  }
  console.log(
    `chaos: ${done} kills (${counts.loading} while loading, ${counts.step} in steps, ` +
      `${counts.save} in saves, ${counts.final} in the last save), ${counts.checked} checkpoints read, ` +
      `${counts.runs} runs, seed ${values.seed}: every one equal to the undisturbed run`,
  );
}

/** Kills the run at a moment that chance picks; resolves with what it was doing. */
async function kill({ child, ended }, outputDir) {
  let over = false;
  ended.then(() => {
    over = true;
  });
  if (random() < 0.1) {
    await Promise.race([sleep(random() * 400), ended]);
    child.kill("SIGKILL");
    return "loading";
  }
  // Waits for the run to have begun, then for a number of events of its folder: a save begins with one.
  const wanted = 1 + Math.floor(random() * 40);
  const inSave = random() < 0.6;
  const first = stepsOf(outputDir).at(-1) ?? 0;
  while (!over && (stepsOf(outputDir).at(-1) ?? 0) === first) await sleep(2);
  let moment = "step";
  if (inSave && !over) {
    await Promise.race([ended, eventsOf(outputDir, wanted)]);
    // 0 to 20 ms into it: a save of this model takes about that long.
    if (random() < 0.7) await sleep(random() * 20);
  } else {
    await Promise.race([sleep(random() * 300), ended]);
  }
  child.kill("SIGKILL");
  await ended;
  const left = readdirSync(outputDir).filter((name) => name.startsWith(".tmp-"));
  if (left.some((name) => name.includes("checkpoint-"))) moment = "save";
  else if (left.length > 0) moment = "final";
  return moment;
}

/** Resolves after so many changes in a folder. */
function eventsOf(dir, wanted) {
  return new Promise((resolve) => {
    let seen = 0;
    const watcher = watchFolder(dir, () => {
      if (++seen < wanted) return;
      watcher.close();
      resolve();
    });
    watcher.unref();
    setTimeout(() => {
      watcher.close();
      resolve();
    }, 5000).unref();
  });
}

function finish(outputDir, calm) {
  const weights = (dir) => readFileSync(path.join(dir, "model.safetensors"));
  assert.ok(
    weights(outputDir).equals(weights(calm)),
    "final weights differ from the undisturbed run's",
  );
  assert.equal(metrics(outputDir), metrics(calm), "metrics differ from the undisturbed run's");
  const left = readdirSync(outputDir).filter((name) => /^\.(tmp|lock)-/.test(name));
  assert.deepEqual(left, [], "what the kills left behind is removed");
  rmSync(outputDir, { recursive: true });
}

try {
  await main();
  rmSync(folder, { recursive: true });
} catch (error) {
  console.error(`chaos: seed ${values.seed}: ${error.stack}\nEverything is kept in ${folder}`);
  process.exitCode = 1;
}
