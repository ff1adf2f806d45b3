import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { addonInfo, type CommCounter } from "#src/native/index.js";
import { TEST_DEVICES } from "../ops/harness/devices.js";
import { forkRanks, noMpi, runRanks } from "../support/ranks.js";

const program = (name: string) => fileURLToPath(new URL(`ranks/${name}.js`, import.meta.url));
const device = TEST_DEVICES[0]!;

interface Collectives {
  readonly size: number;
  readonly engine: string;
  readonly problems: readonly string[];
  readonly digest: string;
  readonly counters: readonly CommCounter[];
}

async function collectives(ranks: number, seed: number, env: Record<string, string> = {}) {
  const run = await runRanks<Collectives>(
    ranks,
    program("collectives"),
    ["mpi", device, String(seed)],
    env,
  );
  assert.equal(run.code, 0, run.stderr);
  for (const report of run.reports) {
    assert.deepEqual(report?.problems, []);
    assert.equal(report.size, ranks);
  }
  return run.reports.map((report) => report!);
}

async function failures(ranks: number, scenario: string) {
  return runRanks<unknown[]>(ranks, program("failures"), [scenario, device]);
}

for (const ranks of [1, 2, 3, 4]) {
  test(`mpi: every collective between ${ranks} ranks, to the bit and to the byte`, {
    skip: noMpi,
  }, async () => {
    const seed = 1 + Math.floor(Math.random() * 1e6);
    const reports = await collectives(ranks, seed);
    const digests = new Set(reports.map(({ digest }) => digest));
    assert.equal(digests.size, 1, "an all_reduce has the same bits on every rank");
    // Messages of at most 10 kB, so pieces of 2500 elements, and the same bits again.
    const small = await collectives(ranks, seed, { SIMPER_MPI_MESSAGE_BYTES: "10000" });
    assert.deepEqual(small, reports, `seed ${seed}`);
  });
}

test("mpi: a time-out names the operation and the ranks that did not answer", {
  skip: noMpi,
}, async () => {
  const { reports } = await failures(4, "silence");
  const text = (rank: number) =>
    `CommError: all_gather (op 3) on rank ${rank}: no answer from ranks 2, 3 within 1 s`;
  // What failed stays failed.
  assert.deepEqual(reports[0], [text(0), text(0)]);
  assert.deepEqual(reports[1], [text(1), text(1)]);
  assert.deepEqual(reports.slice(2), [[], []]);
});

test("mpi: ranks in different operations say so", { skip: noMpi }, async () => {
  const { reports } = await failures(2, "mismatch");
  assert.deepEqual(reports, [
    [
      "CommError: all_reduce (op 2) on rank 0: no answer from rank 1 within 1 s; " +
        "rank 1 is at op 2, barrier",
    ],
    [
      "CommError: barrier (op 2) on rank 1: no answer from rank 0 within 1 s; " +
        "rank 0 is at op 2, all_reduce",
    ],
  ]);
});

test("mpi: tensors of different sizes are noticed", { skip: noMpi }, async () => {
  const { reports } = await failures(3, "sizes");
  assert.match(
    String(reports[1]),
    /^CommError: broadcast \(op 2\) on rank 1: rank 0 sent more than the 36 bytes expected/,
  );
  assert.match(
    String(reports[2]),
    /^CommError: broadcast \(op 2\) on rank 2: rank 0 sent 40 bytes, expected 44/,
  );
});

test("mpi: abort is heard while a collective waits, by streams that wait for it, and for good", {
  skip: noMpi,
}, async () => {
  const { reports } = await failures(3, "abort");
  const reason = "CommError: rank 0 died of boredom in checkpoint-7";
  for (const rank of [1, 2]) assert.deepEqual(reports[rank], [reason, reason, reason, 0]);
});

test("mpi: a stream whose collective waits for others can be disposed", {
  skip: noMpi,
}, async () => {
  const { reports } = await failures(2, "dispose");
  assert.deepEqual(reports[1], ["DeviceError: the stream was closed before it got here"]);
});

test("mpi: a rank that throws ends the run", { skip: noMpi }, async () => {
  const { code, stderr } = await failures(2, "throw");
  assert.notEqual(code, 0);
  assert.match(stderr, /Error: rank 1 throws/);
});

test("mpi: a rank that does not start is noticed, and the waiting process can end", {
  skip: noMpi,
}, async () => {
  const { code, reports } = await failures(2, "nobody-comes");
  assert.notEqual(code, 0);
  assert.deepEqual(reports[0], ["CommError: open: mpi has not met all ranks within 1 s"]);
});

/** What a process without mpirun hears that believes to be rank 1 of 4. */
async function alone(env: Record<string, string> = {}): Promise<unknown> {
  const run = await forkRanks<unknown[]>(1, program("failures"), ["alone", device], env);
  assert.equal(run.code, 0, run.stderr);
  return run.reports[0]![0];
}

test("mpi: a rank that is another than it thinks says so", { skip: noMpi }, async () => {
  assert.equal(await alone(), "CommError: open: mpi says rank 0 of 1, expected rank 1 of 4");
});

test("mpi: a build without MPI, and a library that is not ours, say what to do", {
  skip: noMpi,
}, async () => {
  const install =
    "install Open MPI (apt-get install openmpi-bin libopenmpi-dev) and build again: npx simper-native build";
  const folder = mkdtempSync(path.join(os.tmpdir(), "simper-no-mpi-"));
  try {
    const addon = path.join(folder, "simper_native.node");
    copyFileSync(addonInfo().path, addon);
    assert.equal(
      await alone({ SIMPER_NATIVE_BINDING: addon }),
      `CommError: open: MPI cannot be used: not part of this build, as there was no MPI; ${install}`,
    );
    assert.equal(
      await alone({ SIMPER_MPI: addon }),
      `CommError: open: MPI cannot be used: ${addon} (SIMPER_MPI) is not our library`,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.match(
    String(await alone({ SIMPER_MPI: "/no/simper_mpi.so" })),
    /^CommError: open: MPI cannot be used: does not load: \/no\/simper_mpi\.so: .*; install Open MPI \(apt-get/,
  );
});

test("mpi: a process has one communicator, once", { skip: noMpi }, async () => {
  const { code, reports, stderr } = await failures(2, "second");
  assert.equal(code, 0, stderr);
  const refused =
    "CommError: open: MPI is or was in use in this process, expected one communicator per process";
  assert.deepEqual(reports, [
    [refused, refused],
    [refused, refused],
  ]);
});
