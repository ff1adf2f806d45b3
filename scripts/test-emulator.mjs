// Tests the CUDA kernels without a GPU: builds the addon with the emulated device (build/emulated) and runs on it
//   - every op case under four schedules, the two that draw lots with five seeds each (simper_replay),
//   - the tests of ops that are not cases, whole training steps, and the emulator's own tests.
// The compiled tests must be there: `npm run test:emulator` sees to it. The last line is the count of what passed.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const out = "build/emulated";
const work = mkdtempSync(path.join(os.tmpdir(), "simper-emulator-"));
const cases = path.join(work, "cases.bin");
const tap = path.join(work, "tests.tap");

const TARGETS = [
  "simper_replay",
  "simper_selftest",
  "simper_selftest_memory",
  "simper_selftest_races",
];
// Schedules of a runner, and how often: two runners at once, with about as much to do.
const RUNS = [
  [
    ["sequential,reverse", 1],
    ["random", 5],
  ],
  [["skewed", 5]],
];
const TESTS = [
  "cuda/emulator",
  "cuda/families",
  "cuda/replay",
  "cuda/training",
  "launch/nccl-runs",
  "native/comm",
  "native/comm-nccl",
  "native/event",
  "ops/adamw",
  "ops/attention",
  "ops/contract",
  "ops/determinism",
  "ops/gradient",
  "parallel/zero-devices",
  "train/elastic-devices",
];

/** Runs a program; what it prints is shown, and returned. Throws when it fails. */
function run(command, args, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk) => {
      text += chunk;
      process.stdout.write(chunk);
    });
    child.on("error", reject);
    child.on("close", (code) =>
      code === 0 ? resolve(text) : reject(new Error(`${command} ${args.join(" ")}: exit ${code}`)),
    );
  });
}

/** Every op case under every schedule: how many runs that were. */
async function replay() {
  await run(process.execPath, ["scripts/replay-cases.mjs", cases]);
  const counts = await Promise.all(
    RUNS.map(async (schedules) => {
      let runs = 0;
      for (const [policies, seeds] of schedules) {
        const words = ["--policies", policies, "--seeds", String(seeds), cases];
        const text = await run(path.join(root, out, "simper_replay"), words);
        runs += Number(/(\d+) runs/.exec(text)?.[1] ?? Number.NaN);
      }
      return runs;
    }),
  );
  return counts.reduce((a, b) => a + b);
}

/** The tests on the emulated device: how many passed. */
async function tests() {
  const files = TESTS.map((name) => `dist-test/${name}.test.js`);
  const reporters = [
    ["spec", "stdout"],
    ["tap", tap],
  ].flatMap(([reporter, to]) => [
    `--test-reporter=${reporter}`,
    `--test-reporter-destination=${to}`,
  ]);
  await run(process.execPath, ["--test", "--test-concurrency=1", ...reporters, ...files], {
    SIMPER_TEST_DEVICES: "emulated",
    SIMPER_NATIVE_BINDING: path.join(root, out, "Release/simper_native.node"),
  });
  const report = readFileSync(tap, "utf8");
  const count = (what) => Number(new RegExp(`^# ${what} (\\d+)`, "m").exec(report)?.[1]);
  return { passed: count("pass"), skipped: count("skipped") };
}

try {
  const build = { SIMPER_CMAKE_OPTION_SIMPER_EMULATOR: "ON" };
  await run(process.execPath, ["scripts/build.mjs", "--out", out], build);
  await run("cmake", ["--build", out, "--target", ...TARGETS]);
  const runs = await replay();
  const { passed, skipped } = await tests();
  console.log(
    `test:emulator: ${runs} runs of op cases and ${passed} tests passed, ${skipped} skipped`,
  );
} catch (error) {
  console.error(`test:emulator: failed: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}
