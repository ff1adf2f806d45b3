import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { CommCounter } from "#src/native/index.js";
import { ncclDevice, ncclEnvironment, noNccl, refusesToShare } from "../support/nccl.js";
import { forkRanks } from "../support/ranks.js";

// The part of the addon that drives NCCL.
const device = ncclDevice;
const emulated = device === "emulated";
const env = ncclEnvironment;
const skip = noNccl;

const program = (name: string) => fileURLToPath(new URL(`ranks/${name}.js`, import.meta.url));

interface Collectives {
  readonly size: number;
  readonly engine: string;
  readonly problems: readonly string[];
  readonly digest: string;
  readonly counters: readonly CommCounter[];
}

for (const ranks of [1, 2, 3]) {
  test(`nccl: every collective between ${ranks} ranks, to the bit`, { skip }, async (t) => {
    const seed = 1 + Math.floor(Math.random() * 1e6);
    const args = ["nccl", device, String(seed)];
    const run = await forkRanks<Collectives>(ranks, program("collectives"), args, env);
    if (ranks > 1 && refusesToShare(run.stderr))
      return t.skip("this NCCL does not let ranks share a GPU");
    assert.equal(run.code, 0, run.stderr);
    for (const report of run.reports) {
      assert.deepEqual(report?.problems, [], `seed ${seed}`);
      assert.deepEqual([report.size, report.engine], [ranks, "nccl"]);
      assert.equal(report.digest, run.reports[0]!.digest);
    }
  });
}

function failures(ranks: number, scenario: string, more: Record<string, string> = {}) {
  const args = [scenario, device];
  return forkRanks<unknown[]>(ranks, program("nccl-failures"), args, { ...env, ...more });
}

test("nccl: a rank that does not come is a time-out that names the operation", {
  skip,
}, async () => {
  const { reports } = await failures(2, "silence");
  const text =
    "CommError: all_gather (op 2) on rank 0: not done within 1 s; " +
    "a rank did not come, or a connection is stuck";
  assert.deepEqual(reports, [[text, text], []]);
});

test("nccl: abort is heard while a collective waits, and for good", { skip }, async () => {
  const { reports } = await failures(2, "abort");
  const reason = "CommError: rank 1 was lost";
  assert.deepEqual(reports, [[reason, reason, reason], []]);
});

test("nccl: a stream whose collective waits for others can be disposed", { skip }, async () => {
  const { reports } = await failures(2, "dispose");
  assert.deepEqual(reports, [["DeviceError: the stream was closed before it got here"], []]);
});

test("nccl: an error that the library meets later is told with its words", {
  skip: emulated ? skip : skip || "needs a library that fails when told to",
}, async () => {
  const { reports } = await failures(2, "fault", { SIMPER_FAKE_NCCL_FAULT: "2" });
  for (const rank of [0, 1]) {
    const text = `CommError: all_reduce (op 2) on rank ${rank}: NCCL: remote process exited or there was a network error`;
    assert.deepEqual(reports[rank], [text, text]);
  }
});

test("nccl: ranks that do not meet, and options that cannot be", { skip }, async () => {
  const { reports } = await failures(1, "open");
  assert.deepEqual(reports[0], [
    "CommError: open on rank 0: not done within 1 s; a rank did not come, or a connection is stuck",
    "ContractError: open: uniqueId has 3 bytes, expected the 128 of ncclUniqueId()",
    "ContractError: open: the engine nccl has to be told rank and size",
    "CommError: open: the engine nccl moves bytes of GPUs, this is the cpu device; expected the engine mpi",
  ]);
});

test("nccl: a library that is not NCCL, or is not there, is named", {
  skip: emulated ? skip : skip || "as on the emulated device",
}, async () => {
  const foreign = path.join(path.dirname(ncclEnvironment.SIMPER_NCCL!), "simper_mpi.so");
  const wrong = await failures(1, "library", { SIMPER_NCCL: foreign });
  assert.deepEqual(wrong.reports[0], [
    `CommError: open: NCCL cannot be used: SIMPER_NCCL names ${foreign}; ${foreign} cannot be used: ` +
      "it has no function ncclGetVersion",
  ]);
  const absent = await failures(1, "library", { SIMPER_NCCL: "/no/libnccl.so.2" });
  assert.deepEqual(absent.reports[0], [
    "CommError: open: NCCL cannot be used: SIMPER_NCCL names /no/libnccl.so.2, which cannot be opened",
  ]);
});
