// Kills a training run at random moments, in steps and in saves, and resumes it, again and again. After every
// kill each checkpoint is read to its last byte and compared with what an undisturbed run has at that step;
// no checkpoint may be lost; metrics and final weights must equal the undisturbed run's. Exit code 1 if not.
//   node scripts/chaos.mjs [--kills 200] [--steps 40] [--seed n]
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  createRandom,
  digests,
  eventsOf,
  metrics,
  readNumbers,
  stepsOf,
  trainWords,
  weights,
} from "./chaos-support.mjs";

const { kills, steps, seed } = readNumbers({ kills: 200, steps: 40 });
const random = createRandom(seed);
const folder = mkdtempSync(path.join(os.tmpdir(), "simper-chaos-"));

/** Starts the run, or goes on with it. */
function start(outputDir) {
  const command = trainWords(outputDir, { max_steps: steps });
  const child = spawn(process.execPath, command, { stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, stderr }));
  return { child, ended };
}

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
      `${counts.runs} runs, seed ${seed}: every one equal to the undisturbed run`,
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

function finish(outputDir, calm) {
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
  console.error(`chaos: seed ${seed}: ${error.stack}\nEverything is kept in ${folder}`);
  process.exitCode = 1;
}
