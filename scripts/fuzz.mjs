// Feeds mutated files to the readers of the project. A finding is a crash, a hang, an error that is none of
// ours or has the wrong exit code, or memory beyond the limit; its input is kept and the exit code is 1.
//   node scripts/fuzz.mjs <target|all> [--seconds 60] [--seed n]     targets: test/fuzz/{safetensors,pieces,jsonl,yaml}.mjs
//   node scripts/fuzz.mjs <target> --input file                      one input again
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const TARGETS = ["safetensors", "pieces", "jsonl", "yaml"];
const HANG_SECONDS = 20;
const HEAP_MB = 512;
const RSS_MB = 1024;

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    input: { type: "string" },
    worker: { type: "string" }, // folder that the worker may write to
  },
});
const [name] = positionals;
if (name === undefined) {
  console.error(
    `Usage: node scripts/fuzz.mjs <${TARGETS.join("|")}|all> [--seconds 60] [--seed n] [--input file]`,
  );
  process.exit(2);
}
const seconds = Number(values.seconds);
const seed = Number(values.seed);

if (values.worker !== undefined) await work(name, values.worker);
else if (values.input !== undefined) await again(name, values.input);
else {
  const names = name === "all" ? TARGETS : [name];
  let failed = false;
  for (const target of names) failed = !(await supervise(target, seconds / names.length)) || failed;
  process.exitCode = failed ? 1 : 0;
}

function load(target) {
  const file = target.endsWith(".mjs")
    ? path.resolve(target)
    : path.join(root, "test/fuzz", `${target}.mjs`);
  return import(pathToFileURL(file).href);
}

/** Runs a worker and watches it from outside. Returns whether all was well. */
function supervise(target, limit) {
  const folder = mkdtempSync(path.join(os.tmpdir(), "simper-fuzz-"));
  const script = fileURLToPath(import.meta.url);
  const options = ["--worker", folder, "--seconds", String(limit), "--seed", String(seed)];
  const child = spawn(
    process.execPath,
    [`--max-old-space-size=${HEAP_MB}`, script, target, ...options],
    {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    },
  );
  let last = { inputs: 0, refused: 0, rssMb: 0 };
  let hung = false;
  let watchdog;
  const expect = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => {
      hung = true;
      child.kill("SIGKILL");
    }, HANG_SECONDS * 1e3);
  };
  expect();
  child.on("message", (message) => {
    last = message;
    expect();
  });
  return new Promise((resolve) => {
    child.on("close", (code, signal) => {
      clearTimeout(watchdog);
      const { inputs, refused, rssMb } = last;
      const text = `${inputs} inputs, ${refused} refused, ${Math.round(rssMb)} MB, seed ${seed}`;
      if (code === 0) {
        console.log(`fuzz ${target}: ${text}: no finding`);
        rmSync(folder, { recursive: true, force: true });
      } else {
        const why = hung
          ? `no answer for ${HANG_SECONDS} s`
          : signal
            ? `ended by ${signal}`
            : `exit ${code}`;
        console.error(`fuzz ${target}: FINDING after ${text}: ${why}; input kept in ${folder}`);
      }
      resolve(code === 0);
    });
  });
}

/** The loop: generate, write, run. An error that is allowed is counted, any other ends the process. */
async function work(target, folder) {
  const { createRandom } = await load("random");
  const { generate, run, extension, exitCode } = await load(target);
  const random = createRandom(seed);
  const file = path.join(folder, `input${extension}`);
  const end = performance.now() + seconds * 1e3;
  const state = { inputs: 0, refused: 0, rssMb: 0 };
  let told = 0;
  while (performance.now() < end) {
    const bytes = generate(random);
    writeFileSync(file, bytes);
    state.inputs++;
    if ((await outcome(run, file, bytes, exitCode)) === "refused") state.refused++;
    if (performance.now() - told < 500) continue;
    told = performance.now();
    state.rssMb = process.memoryUsage.rss() / 2 ** 20;
    process.send(state);
    if (state.rssMb > RSS_MB) throw new Error(`${state.rssMb} MB of memory`);
  }
  state.rssMb = process.memoryUsage.rss() / 2 ** 20;
  process.send(state);
  process.disconnect();
}

async function outcome(run, file, bytes, exitCode) {
  try {
    return await run(file, bytes);
  } catch (error) {
    if (String(error?.code).startsWith("ERR_SIMPER_") && error.exitCode === exitCode)
      return "refused";
    throw error;
  }
}

async function again(target, input) {
  const { run, exitCode } = await load(target);
  console.log(await outcome(run, input, readFileSync(input), exitCode));
}
