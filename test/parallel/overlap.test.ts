import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";
import { noMpi, runRanks } from "../support/ranks.js";
import { temporaryFolder } from "../train/support.js";

test("store: exchanges run under the work that needs none of them", { skip: noMpi }, async (t) => {
  const program = path.join(root, "dist-test", "parallel", "overlap-rank.js");
  const { code, stdout, stderr } = await runRanks(2, program, [temporaryFolder(t)]);
  assert.equal(code, 0, stderr);
  assert.deepEqual(stdout.match(/^rank \d: all stages$/gm)?.sort(), [
    "rank 0: all stages",
    "rank 1: all stages",
  ]);
});
