// Ends one rank of a run of 2 to 4 at a random moment: kill -9, SIGSTOP, or an exit in the middle of its work. All
// ranks have to end within a bound, no process may be left, no checkpoint lost, and each equals to the last byte that
// of an undisturbed run. Then the run is resumed with as many ranks, which has to give the undisturbed run's metrics
// and weights, and with another number and another ZeRO stage, which has to give its curve. Exit code 1 if not.
//   node scripts/chaos-ranks.mjs [--rounds 50] [--steps 36] [--seed n]
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
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

const { rounds, steps, seed } = readNumbers({ rounds: 50, steps: 36 });
const random = createRandom(seed);
const below = (limit) => Math.floor(random() * limit);
const folder = mkdtempSync(path.join(os.tmpdir(), "simper-chaos-ranks-"));

const SAVE_STEPS = 6;

/** Seconds without a sign of life after which a rank counts as hung. */
const SILENCE = 5;
/**
 * Seconds that all processes may take to end when one rank is gone; on top of them the silence of one that hangs, or
 * the time that ranks have to meet.
 */
const BOUND = 20;

// A rank that ends by itself, in the middle of whatever it does: one that gets SIGHUP calls process.exit.
const EXIT = "process.on('SIGHUP',()=>process.exit(Number(process.env.CHAOS_EXIT)))";
const ENDS = [
  { name: "kill", signal: "SIGKILL", seconds: BOUND },
  { name: "stop", signal: "SIGSTOP", seconds: BOUND + 5 * SILENCE },
  { name: "exit", signal: "SIGHUP", seconds: BOUND },
];

/** Starts the run with so many ranks, or goes on with it. */
function start(outputDir, ranks, stage) {
  const mark = randomUUID();
  // Micro-batches of two or three pairs, and a checkpoint every sixth step: there are moments of every kind.
  const words = trainWords(outputDir, {
    ...{ max_steps: steps, save_steps: SAVE_STEPS, zero_stage: stage },
    ...{ gradient_accumulation_steps: 6, max_tokens_per_micro_batch: 150 },
  });
  const child = spawn(process.execPath, [...words, "--nproc", String(ranks), "--device", "cpu"], {
    env: {
      ...process.env,
      CHAOS_RUN: mark,
      CHAOS_EXIT: String(below(2) * 3), // even one that says all is well
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(EXIT)}`,
      SIMPER_RANK_TIMEOUT: String(SILENCE),
      SIMPER_VERBOSE: "1",
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const run = { child, mark, over: false };
  run.ended = once(child, "close").then(([code]) => {
    run.over = true;
    return { code, stderr };
  });
  return run;
}

/** The processes of a run that are there, by pid, with the rank of those that have one. */
function processesOf({ mark }) {
  const found = new Map();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const variables = readFileSync(`/proc/${name}/environ`, "latin1").split("\0");
      if (!variables.includes(`CHAOS_RUN=${mark}`)) continue;
      const rank = variables.find((text) => text.startsWith("OMPI_COMM_WORLD_RANK="));
      found.set(Number(name), rank && Number(rank.split("=")[1]));
    } catch {
      // It has just ended.
    }
  }
  return found;
}

/** The pid of a rank, once it is there. */
async function pidOf(run, rank) {
  while (!run.over) {
    for (const [pid, its] of processesOf(run)) if (its === rank) return pid;
    await sleep(10);
  }
  return undefined;
}

const calmRuns = new Map();

/** What an undisturbed run of so many ranks comes to. */
async function calmRun(ranks, stage) {
  const key = `${ranks}-${stage}`;
  if (!calmRuns.has(key)) {
    const dir = path.join(folder, `calm-${key}`);
    const run = start(dir, ranks, stage);
    while (!run.over && stepsOf(dir).length === 0) await sleep(2);
    const began = performance.now();
    const { code, stderr } = await run.ended;
    assert.equal(code, 0, stderr);
    const ms = performance.now() - began;
    const checkpoints = new Map();
    for (const step of stepsOf(dir))
      checkpoints.set(step, await digests(path.join(dir, `checkpoint-${step}`)));
    assert.equal(checkpoints.size, steps / SAVE_STEPS);
    const found = { metrics: metrics(dir), records: recordsOf(dir), weights: weights(dir) };
    calmRuns.set(key, { ms, checkpoints, ...found });
    rmSync(dir, { recursive: true });
  }
  return calmRuns.get(key);
}

/**
 * Waits for a moment that chance picks and ends a rank; undefined where the run was faster.
 * @param ms from the first checkpoint to the end of an undisturbed run
 */
async function strike(run, outputDir, ranks, ms) {
  const victim = below(ranks);
  const end = ENDS[below(ENDS.length)];
  const place = random();
  const delay = random();
  if (place < 0.1) {
    await Promise.race([sleep(300 + delay * 1500), run.ended]);
  } else {
    // Once a first checkpoint is there, after a number of changes in the folder: a save begins and ends with one.
    const changes = 1 + below((3 * steps) / SAVE_STEPS);
    while (!run.over && stepsOf(outputDir).length === 0) await sleep(2);
    if (place < 0.3) {
      await Promise.race([run.ended, eventsOf(outputDir, changes)]);
      await sleep(delay < 0.3 ? 0 : delay * 40);
    } else {
      await Promise.race([sleep(delay * ms), run.ended]);
    }
  }
  const pid = await pidOf(run, victim);
  if (pid === undefined || run.over) return undefined;
  const known = stepsOf(outputDir);
  try {
    process.kill(pid, end.signal);
  } catch {
    return undefined; // it has just ended
  }
  return { victim, end, known, at: performance.now() };
}

/** What a process that should have ended is doing. */
function describeProcess(pid, rank) {
  const read = (name) => {
    try {
      return readFileSync(`/proc/${pid}/${name}`, "utf8").replaceAll("\0", " ");
    } catch {
      return "";
    }
  };
  const state = /^State:.*$/m.exec(read("status"))?.[0] ?? "";
  const threads = existsSync(`/proc/${pid}/task`) ? readdirSync(`/proc/${pid}/task`) : [];
  const waits = threads.map(
    (thread) => `${read(`task/${thread}/comm`).trim()} ${read(`task/${thread}/wchan`)}`,
  );
  return `${pid} rank ${rank}: ${state} ${read("cmdline").slice(0, 60)} [${waits.join(", ")}]`;
}

/** Resolves with the run's end, and how long after the strike; fails when it takes longer than its bound. */
async function endOf(run, { at, end, victim }) {
  const late = new AbortController();
  const result = await Promise.race([
    run.ended,
    sleep(end.seconds * 1e3, undefined, { signal: late.signal }).then(
      () => undefined,
      () => undefined,
    ),
  ]);
  late.abort();
  if (result === undefined) {
    const there = [...processesOf(run)].map(([pid, rank]) => describeProcess(pid, rank));
    for (const pid of processesOf(run).keys()) process.kill(pid, "SIGKILL");
    const { stderr } = await run.ended;
    const text = `after ${end.seconds} s these processes are still there:\n${there.join("\n")}\n${stderr}`;
    assert.fail(`${end.name} of rank ${victim}: ${text}`);
  }
  const seconds = (performance.now() - at) / 1e3;
  const goneBy = performance.now() + 3000; // the launcher's guard may be the last
  while (processesOf(run).size > 0 && performance.now() < goneBy) await sleep(20);
  const left = [...processesOf(run).keys()];
  assert.deepEqual(left, [], "processes left behind");
  return { ...result, seconds };
}

/** What the run was doing when it was struck, by what it left and what its ranks said. */
function momentOf(outputDir, stderr) {
  const left = existsSync(outputDir) ? readdirSync(outputDir) : [];
  const unfinished = left.filter((name) => name.startsWith(".tmp-"));
  if (unfinished.some((name) => name.includes("checkpoint-"))) return "checkpoint";
  if (
    /was lost in "?checkpoint|for \d+ s in checkpoint|in (gather|broadcast|barrier) "/.test(stderr)
  )
    return "checkpoint";
  if (/(all_gather|reduce_scatter|all_reduce|broadcast|barrier) \(op \d+\)/.test(stderr))
    return "collective";
  return stepsOf(outputDir).length === 0 ? "loading" : "step";
}

async function checkCheckpoints(outputDir, calm, known, what) {
  const now = stepsOf(outputDir);
  for (const step of known) assert.ok(now.includes(step), `${what}: checkpoint-${step} is lost`);
  for (const step of now) {
    assert.deepEqual(
      await digests(path.join(outputDir, `checkpoint-${step}`)),
      calm.checkpoints.get(step),
      `${what}: checkpoint-${step} is another one than without disturbance`,
    );
  }
  return now.length;
}

function checkTidy(outputDir) {
  const left = readdirSync(outputDir).filter((name) => /^\.(tmp|lock)-/.test(name));
  assert.deepEqual(left, [], "what the strike left behind is removed");
}

function recordsOf(dir) {
  const lines = readFileSync(path.join(dir, "metrics.jsonl"), "utf8").trim().split("\n");
  return lines.map((line) => JSON.parse(line));
}

/** Every loss and gradient norm: as far apart as sums in another order are. */
function checkCurve(outputDir, calm) {
  const [found, expected] = [recordsOf(outputDir), calm.records];
  assert.equal(found.length, expected.length);
  for (const [i, { step, loss, grad_norm }] of expected.entries()) {
    assert.equal(found[i].step, step);
    for (const [key, value] of Object.entries({ loss, grad_norm })) {
      const distance = Math.abs(found[i][key] - value);
      const far = `step ${step}: ${key} ${found[i][key]}, expected ${value}`;
      assert.ok(distance <= 1e-4 * Math.abs(value) + 1e-6, far);
    }
  }
}

async function main() {
  const counts = {};
  const count = (name) => {
    counts[name] = (counts[name] ?? 0) + 1;
  };
  assert.equal(steps % SAVE_STEPS, 0, `--steps: expected a multiple of ${SAVE_STEPS}`);
  let slowest = 0;
  let checked = 0;
  for (let round = 1; round <= rounds; ) {
    const ranks = 2 + below(3);
    const stage = below(4);
    const calm = await calmRun(ranks, stage);
    const outputDir = path.join(folder, `round-${round}`);
    const run = start(outputDir, ranks, stage);
    const struck = await strike(run, outputDir, ranks, calm.ms);
    if (struck === undefined) {
      const { code, stderr } = await run.ended;
      assert.equal(code, 0, stderr);
      rmSync(outputDir, { recursive: true });
      continue;
    }
    const { victim, end, known } = struck;
    const { code, stderr, seconds } = await endOf(run, struck);
    const what = `round ${round}, ${end.name} of rank ${victim} of ${ranks}, ZeRO-${stage}`;
    if (code === 0) {
      // It had done all of its work already.
      assert.deepEqual(stepsOf(outputDir).at(-1), steps, `${what}: ends well\n${stderr}`);
      rmSync(outputDir, { recursive: true });
      continue;
    }
    slowest = Math.max(slowest, seconds);
    const moment = momentOf(outputDir, stderr);
    count(moment);
    count(end.name);
    checked += await checkCheckpoints(outputDir, calm, known, what);

    // On another number of ranks and another stage, in a copy.
    const others = [1, 2, 3, 4].filter((n) => n !== ranks);
    const otherRanks = others[below(others.length)];
    const elastic = path.join(folder, `elastic-${round}`);
    if (existsSync(outputDir)) cpSync(outputDir, elastic, { recursive: true });
    const resumed = await start(outputDir, ranks, stage).ended;
    assert.equal(resumed.code, 0, `${what}: resumed: ${resumed.stderr}`);
    await checkCheckpoints(outputDir, calm, stepsOf(outputDir), `${what}, resumed`);
    assert.equal(stepsOf(outputDir).length, steps / SAVE_STEPS);
    assert.equal(metrics(outputDir), calm.metrics, `${what}: metrics differ`);
    assert.ok(weights(outputDir).equals(calm.weights), `${what}: final weights differ`);
    checkTidy(outputDir);

    if (stepsOf(elastic).length > 0) {
      const other = await start(elastic, otherRanks, below(4)).ended;
      assert.equal(other.code, 0, `${what}: resumed on ${otherRanks}: ${other.stderr}`);
      checkCurve(elastic, calm);
      checkTidy(elastic);
      count(`${ranks}→${otherRanks}`);
    }
    console.log(
      `round ${round}: ${end.name} of rank ${victim} of ${ranks}, ZeRO-${stage}, in ${moment}: ` +
        `ended after ${seconds.toFixed(1)} s at checkpoint ${known.at(-1) ?? "none"}`,
    );
    for (const dir of [outputDir, elastic]) rmSync(dir, { recursive: true, force: true });
    round++;
  }
  console.log(
    `chaos-ranks: ${rounds} rounds, ${checked} checkpoints read, none lost; slowest end ${slowest.toFixed(1)} s; ` +
      `seed ${seed}; ${JSON.stringify(counts)}`,
  );
}

try {
  await main();
  rmSync(folder, { recursive: true });
} catch (error) {
  console.error(`chaos-ranks: seed ${seed}: ${error.stack}\nEverything is kept in ${folder}`);
  process.exitCode = 1;
}
