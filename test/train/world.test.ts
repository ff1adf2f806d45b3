import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";

const program = path.join(root, "dist-test", "train", "world-rank.js");

for (const [moment, says] of [
  ["before MPI has started", /^open: mpi has not met all ranks within 5 s$/],
  [
    "after MPI has started",
    /^rank [12]: rank 0 gave no sign of life within 5 s; it is stopped or stuck$/,
  ],
  ["while the others leave", /^rank 0 gave no sign of life for 1 s$/],
] as const) {
  test(`world: a rank that stops ${moment} is missed long before ddp_timeout`, {
    skip: noMpi,
  }, async () => {
    const env = { SIMPER_RANK_TIMEOUT: "1" };
    const run = await runRanks<{ name: string; message: string; seconds: number }>(
      3,
      program,
      [moment],
      env,
    );
    assert.equal(run.code, 1, run.stderr);
    const found = run.reports.filter((report) => report !== undefined);
    assert.ok(found.length > 0, run.stderr); // mpirun ends the others with the first
    for (const { name, message, seconds } of found) {
      assert.equal(name, "CommError");
      assert.match(message, says);
      assert.ok(seconds < 25, `${seconds} s`); // before half a minute, when it would kill itself
    }
  });
}
