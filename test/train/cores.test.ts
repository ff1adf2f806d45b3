import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { openDevice, type Stream } from "#src/native/index.js";
import { type Allowance, threadsOf } from "#src/train/cores.js";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import { gqaPairs, temporaryFolder, trajectoryRecipe } from "./support.js";

/** Ranks on one machine that may run on these cores. */
function threads(cores: readonly string[], own?: number, machine = "a"): number[] {
  const all = cores.map((list): Allowance => ({ machine, cores: list, threads: own ?? 1e3 }));
  return all.map((_, rank) => threadsOf(rank, all));
}

test("cores: ranks that are bound to nothing share them evenly", () => {
  assert.deepEqual(threads(["0-15"]), [16]);
  assert.deepEqual(threads(["0-15", "0-15", "0-15", "0-15"]), [4, 4, 4, 4]);
  assert.deepEqual(threads(["0-1", "0-1", "0-1"]), [1, 1, 1]);
  assert.deepEqual(threads(Array(7).fill("0-6")), Array(7).fill(1)); // 7 · 1/7 in floats
});

test("cores: ranks that are bound keep their own, and share a socket", () => {
  assert.deepEqual(threads(["0", "1"]), [1, 1]);
  assert.deepEqual(threads(["0-7", "0-7", "8-15"]), [4, 4, 8]);
  assert.deepEqual(threads(["0-3,8-11", "4-7"]), [8, 4]);
});

test("cores: a quota is shared, another machine's ranks take nothing", () => {
  assert.deepEqual(threads(["0-63", "0-63"], 8), [4, 4]);
  const here: Allowance = { machine: "a", cores: "0-3", threads: 4 };
  assert.equal(threadsOf(0, [here, { ...here, machine: "b" }]), 4);
  assert.equal(threadsOf(1, [here, { ...here, cores: "" }]), 2); // nothing is known of its cores
});

test("cores: a device's streams take the threads that it is told", async () => {
  const tasks = () => readdirSync("/proc/self/task");
  const device = openDevice("cpu");
  const arena = device.arena(1 << 24, "test");
  const streams: Stream[] = []; // all live to the end: the threads of one that is gone end later
  try {
    const x = arena.tensor("f32", [1 << 22]); // enough work for any number of threads
    for (const told of [1, 2, 5]) {
      device.limitThreads(told);
      const before = new Set(tasks());
      const stream = device.stream({ synchronous: false });
      streams.push(stream);
      stream.fill(x, told);
      await stream.done();
      const started = tasks().filter((task) => !before.has(task));
      assert.equal(started.length, told); // its worker, which is one of them, and the others
    }
    assert.throws(() => device.limitThreads(0), /^DeviceError: 0 threads, expected a whole number/);
  } finally {
    for (const stream of streams) stream.dispose();
    arena.dispose();
    device.dispose();
  }
});

test("cores: two ranks of a run halve the machine's, and OMP_NUM_THREADS decides", {
  skip: noMpi,
}, async (t) => {
  const cli = path.join(root, "dist", "cli.js");
  const threadsOfRun = async (name: string, env: Record<string, string>): Promise<number> => {
    const out = path.join(temporaryFolder(t), name);
    const words = [
      ...["train", "--device", "cpu", trajectoryRecipe, "--output_dir", out, "--max_steps", "1"],
      ...["--dataset_mixer", JSON.stringify({ [gqaPairs]: 1 })],
    ];
    const { code, stderr } = await runRanks(2, cli, words, env);
    assert.equal(code, 0, stderr);
    return Number(
      /cpu, (\d+) threads/.exec(readFileSync(path.join(out, "README.md"), "utf8"))?.[1],
    );
  };
  const cores = os.availableParallelism();
  assert.equal(await threadsOfRun("shared", {}), Math.max(1, Math.floor(cores / 2)));
  assert.equal(await threadsOfRun("asked", { OMP_NUM_THREADS: "3" }), 3);
});
