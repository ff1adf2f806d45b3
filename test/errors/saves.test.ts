import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { root } from "../support/paths.js";
import {
  checkpointSteps,
  outputOf,
  readTensors,
  runCli,
  startCli,
  temporaryFolder,
  weightBytes,
} from "../train/support.js";
import { checkRefusal, leftovers, trainCommand } from "./support.js";

/** A run of ten steps that saves after every second, or goes on from what is there. */
const saving = (outputDir: string) =>
  trainCommand(outputDir, { save_strategy: "steps", save_steps: 2, resume_from_checkpoint: true });

async function finish(outputDir: string): Promise<Buffer> {
  const { code, stderr } = await runCli(saving(outputDir));
  assert.equal(code, 0, stderr);
  return weightBytes(outputDir);
}

/** The run's checkpoints are whole, nothing else is left, and going on ends as if nothing had been. */
async function checkRecovery(t: TestContext, outputDir: string, steps: number[]): Promise<void> {
  assert.deepEqual(checkpointSteps(outputDir), steps);
  for (const step of steps) {
    const dir = path.join(outputDir, `checkpoint-${step}`);
    await readTensors(dir);
    await readTensors(path.join(dir, "optimizer.safetensors"));
    assert.equal(JSON.parse(readFileSync(path.join(dir, "run_state.json"), "utf8")).step, step);
  }
  assert.deepEqual(leftovers(outputDir), []);
  const weights = await finish(outputDir);
  assert.ok(weights.equals(await finish(path.join(temporaryFolder(t), "calm"))));
  assert.equal(outputOf(outputDir).steps.length, 10);
}

test("a save that the limit on file sizes ends: the checkpoint before it stays valid", async (t) => {
  const outputDir = path.join(temporaryFolder(t), "run");
  await finish(outputDir);
  for (const step of [6, 8, 10]) {
    rmSync(path.join(outputDir, `checkpoint-${step}`), { recursive: true });
  }
  // 500 blocks of 1 KiB: the model fits, its optimizer state does not.
  const command = [process.execPath, path.join(root, "dist/cli.js"), ...saving(outputDir)];
  const limited = spawnSync("bash", ["-c", 'ulimit -f 500; exec "$@"', "bash", ...command], {
    encoding: "utf8",
  });
  checkRefusal(
    { code: limited.status, ...limited },
    1,
    /optimizer\.safetensors: cannot be written: the file is larger than the limit of the system allows\n {2}Raise `ulimit -f`/,
  );
  await checkRecovery(t, outputDir, [2, 4]);
});

test("a disk that is full during a save: the checkpoint before it stays valid", async (t) => {
  // A mount of its own, as root or as anyone where the system lets users have namespaces.
  const isolated = [[], ["--user", "--map-root-user"]]
    .map((user) => [...user, "--mount", "bash", "-c"])
    .find((words) => {
      const probe = 'mount -t tmpfs tmpfs "$0"';
      return spawnSync("unshare", [...words, probe, temporaryFolder(t)]).status === 0;
    });
  if (!isolated) {
    t.skip("skipped: no right to mount a small disk; the limit on file sizes is tested above");
    return;
  }
  const folder = temporaryFolder(t);
  const disk = path.join(folder, "disk");
  mkdirSync(disk);
  // Two checkpoints of 1.1 MB fit. What the run leaves is copied before the disk goes with its namespace.
  const script = `
    disk=$1 copy=$2; shift 2
    mount -t tmpfs -o size=3m tmpfs "$disk"
    "$@"; code=$?
    cp -a "$disk/run" "$copy"
    exit $code`;
  const outputDir = path.join(folder, "run");
  const cli = [process.execPath, path.join(root, "dist/cli.js")];
  const command = [...cli, ...saving(path.join(disk, "run"))];
  const words = [...isolated, script, "bash", disk, outputDir, ...command];
  const full = spawnSync("unshare", words, { encoding: "utf8" });
  const message = /: cannot be written: no space is left on the device\n {2}Free some space/;
  checkRefusal({ code: full.status, ...full }, 1, message);
  const steps = checkpointSteps(outputDir);
  assert.ok(steps.length >= 1, full.stderr);
  await checkRecovery(t, outputDir, steps);
});

for (const [name, make] of [
  ["a folder", (file: string) => mkdirSync(file, { recursive: true })],
  ["a device that can be read without end", (file: string) => symlinkSync("/dev/zero", file)],
] as const) {
  test(`metrics.jsonl that is ${name} is one error that names it`, async (t) => {
    const outputDir = path.join(temporaryFolder(t), "run");
    mkdirSync(outputDir);
    make(path.join(outputDir, "metrics.jsonl"));
    const message =
      /metrics\.jsonl: cannot be written: expected a file, found a folder or device\n/;
    checkRefusal(await runCli(saving(outputDir)), 1, message);
    assert.deepEqual(leftovers(outputDir), []);
  });
}

test("SIGTERM while the model is loaded ends the run at once and leaves no lock", async (t) => {
  const outputDir = path.join(temporaryFolder(t), "run");
  const run = startCli(saving(outputDir));
  while (!existsSync(outputDir) && run.child.exitCode === null) await sleep(2);
  run.child.kill("SIGTERM");
  const { code } = await run.ended;
  assert.equal(code, 130, run.output.stderr);
  assert.deepEqual(existsSync(outputDir) ? leftovers(outputDir) : [], []);
});
