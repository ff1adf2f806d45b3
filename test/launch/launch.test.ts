import assert from "node:assert/strict";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { root } from "../support/paths.js";
import { livingIn, noMpirun, program, start, startProbes, until } from "./support.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-launch-"));
after(() => rmSync(dir, { recursive: true }));

let logs = 0;
/** A new file in which the probes write their pids. */
function log(): string {
  const file = path.join(dir, `pids-${logs++}`);
  writeFileSync(file, "");
  return file;
}

const lines = (text: string): string[] => text.trimEnd().split("\n").sort();

// mpirun starts the ranks of CPUs, the launcher itself those of GPUs: what a user sees is the same.
for (const device of ["cpu", "cuda"] as const) {
  const by = device === "cpu" ? "mpirun" : "forks";
  const skip = device === "cpu" ? noMpirun : undefined;

  test(`launch, ${by}: ranks run here, and their lines say whose they are`, { skip }, async () => {
    const run = startProbes(device, 3, "hello");
    assert.deepEqual(await run.ended, { code: 0, signal: null });
    assert.deepEqual(
      lines(run.out()),
      lines(
        `out of 0 of 3 in ${root}\n[rank 1] out of 1 of 3 in ${root}\n[rank 2] out of 2 of 3 in ${root}`,
      ),
    );
    const said = [0, 1, 2].flatMap((rank) => {
      const prefix = rank === 0 ? "" : `[rank ${rank}] `;
      return [`${prefix}err of ${rank}: prices in €, half a line`, `${prefix}unfinished`];
    });
    assert.deepEqual(lines(run.err()), said.sort());
  });

  test(`launch, ${by}: an error of all ranks is told once, with its exit code`, {
    skip,
  }, async () => {
    const run = startProbes(device, 3, "mistake");
    assert.equal((await run.ended).code, 2);
    const said = run.err().replace(/^\[rank \d\] /gm, "");
    assert.equal(said, "simper-native: recipe.yaml:3:1  the data is not there\n  Look for it.\n");
  });

  test(`launch, ${by}: a rank that is killed is named, and the others are ended`, {
    skip,
  }, async () => {
    const pids = log();
    const run = startProbes(device, 3, "killed", { log: pids, env: { SIMPER_RANK_TIMEOUT: "2" } });
    const { code } = await run.ended;
    assert.equal(code, 137);
    assert.match(
      run.err(),
      /^simper-native: rank 1 (on \S+ )?was ended by signal 9 \(SIGKILL, as the system does when memory runs out\)\n$/,
    );
    assert.deepEqual(livingIn(pids), []);
  });

  test(`launch, ${by}: a rank that goes without a word is named`, { skip }, async () => {
    const run = startProbes(device, 2, "silent");
    assert.equal((await run.ended).code, 1);
    assert.equal(run.err(), "simper-native: rank 1 ended with exit code 1\n");
  });

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`launch, ${by}: ${signal} asks all ranks once, and they save`, { skip }, async () => {
      const pids = log();
      const run = startProbes(device, 3, "stops", { log: pids });
      await until("all ranks listen", () => livingIn(pids).length === 3);
      run.child.kill(signal);
      assert.deepEqual(await run.ended, { code: 130, signal: null });
      assert.equal(run.err(), "saved\n");
    });
  }

  test(`launch, ${by}: a second signal ends ranks that do not end`, { skip }, async () => {
    const pids = log();
    const run = startProbes(device, 2, "stubborn", { log: pids });
    await until("both ranks run", () => livingIn(pids).length === 2);
    run.child.kill("SIGINT");
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(livingIn(pids).length, 2);
    run.child.kill("SIGINT");
    assert.equal((await run.ended).code, 130);
    assert.deepEqual(livingIn(pids), []);
  });

  test(`launch, ${by}: nothing is left when the launcher is killed`, { skip }, async () => {
    const pids = log();
    const run = startProbes(device, 2, "stubborn", { log: pids });
    await until("both ranks run", () => livingIn(pids).length === 2);
    run.child.kill("SIGKILL");
    await until("the ranks have ended", () => livingIn(pids).length === 0);
  });
}

test("launch: nothing is left when mpirun is killed", { skip: noMpirun }, async () => {
  const pids = log();
  const run = startProbes("cpu", 2, "stubborn", { log: pids });
  await until("both ranks run", () => livingIn(pids).length === 2);
  start(["pkill", "-9", "-P", String(run.child.pid), "mpirun"]);
  assert.equal((await run.ended).code, 137);
  assert.match(run.err(), /simper-native: mpirun was ended by SIGKILL/);
  assert.deepEqual(livingIn(pids), []);
});

test("launch: forked ranks get torchrun's variables, a port and a secret of their own", async () => {
  const run = startProbes("cuda", 2, "environment");
  assert.equal((await run.ended).code, 0);
  const said = lines(run.out().replaceAll("[rank 1] ", "")).map((line) => JSON.parse(line));
  const ports = new Set(said.map(({ MASTER_PORT }) => MASTER_PORT));
  assert.equal(ports.size, 1);
  const MASTER_PORT = said[0].MASTER_PORT as string;
  assert.ok(Number(MASTER_PORT) > 1023, MASTER_PORT);
  const both = {
    WORLD_SIZE: "2",
    LOCAL_WORLD_SIZE: "2",
    MASTER_ADDR: "127.0.0.1",
    MASTER_PORT,
    token: 64,
  };
  assert.deepEqual(
    said,
    [
      { ...both, RANK: "0", LOCAL_RANK: "0" },
      { ...both, RANK: "1", LOCAL_RANK: "1" },
    ].map(({ RANK, WORLD_SIZE, LOCAL_RANK, ...rest }) => ({
      RANK,
      WORLD_SIZE,
      LOCAL_RANK,
      ...rest,
    })),
  );
});

/** A folder with nothing but these programs, as PATH. */
function onlyPath(...names: string[]): string {
  const folder = mkdtempSync(path.join(dir, "bin-"));
  for (const name of names) symlinkSync(`/usr/bin/${name}`, path.join(folder, name));
  return folder;
}

test("launch, mpirun: one machine needs no ssh", { skip: noMpirun }, async () => {
  const env = { PATH: onlyPath("mpirun", "orted") };
  const run = startProbes("cpu", 2, "hello", { env });
  assert.equal((await run.ended).code, 0, run.err());
  assert.match(run.out(), /out of 0 of 2/);
});

test("launch, mpirun: a job of a batch system with other machines does not send ranks there", {
  skip: noMpirun,
}, async () => {
  const slurm = {
    SLURM_JOBID: "7",
    SLURM_JOB_ID: "7",
    SLURM_NNODES: "2",
    SLURM_NODELIST: "far[1-2]",
  };
  const env = { ...slurm, SLURM_TASKS_PER_NODE: "2(x2)", SLURM_JOB_NODELIST: "far[1-2]" };
  const run = startProbes("cpu", 2, "hello", { env });
  assert.equal((await run.ended).code, 0, run.err());
});

test("launch, mpirun: without Open MPI one error names the packages", async () => {
  const run = startProbes("cpu", 2, "hello", { env: { PATH: onlyPath() } });
  assert.equal((await run.ended).code, 1);
  assert.match(
    run.err(),
    /--nproc on a CPU starts its processes with mpirun of Open MPI, which is not in PATH/,
  );
  assert.match(run.err(), /apt install openmpi-bin libopenmpi-dev/);
});

test("launch: a program that is not there is an error of the launcher", async () => {
  const command = [process.execPath, program("launcher.mjs"), "cuda", "2", "/nonexistent/program"];
  const run = start(command);
  assert.equal((await run.ended).code, 1);
  assert.match(
    run.err(),
    /^simper-native: rank 0 could not be started: spawn \/nonexistent\/program ENOENT\n$/,
  );
});
