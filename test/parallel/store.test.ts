import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";

const program = path.join(root, "dist-test", "parallel", "store-rank.js");

// What is compared with what, and why bit for bit, stands in store-rank.ts.
for (const ranks of [1, 2, 3, 4]) {
  test(`store: ${ranks} ranks have the gradients, norms and weights of one process in every stage`, {
    skip: noMpi,
  }, async () => {
    const { code, stdout, stderr } = await runRanks(ranks, program, [], {
      OMP_NUM_THREADS: "1",
    });
    assert.equal(code, 0, stderr);
    const lines = stdout.match(/^rank \d+: \d+ cases, \d+ tensors$/gm) ?? [];
    assert.equal(lines.length, ranks, stdout);
  });
}
