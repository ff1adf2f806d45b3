import assert from "node:assert/strict";
import { test } from "node:test";
import { noMpirun, runRanks } from "./mpirun.js";

// What is compared with what, and why bit for bit, stands in store-rank.ts.
for (const ranks of [1, 2, 3, 4]) {
  test(`store: ${ranks} ranks have the gradients, norms and weights of one process in every stage`, {
    skip: noMpirun,
  }, async () => {
    const { code, stdout, stderr } = await runRanks(ranks, "parallel/store-rank.js");
    assert.equal(code, 0, stderr);
    const lines = stdout.match(/^rank \d+: \d+ cases, \d+ tensors$/gm) ?? [];
    assert.equal(lines.length, ranks, stdout);
  });
}
