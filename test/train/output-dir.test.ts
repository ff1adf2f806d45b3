import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { isReported } from "#src/errors.js";
import { lockOutputDir, requireSharedOutput } from "#src/train/output-dir.js";
import { groupsOf } from "../checkpoint/groups.js";
import { temporaryFolder } from "./support.js";

test("ranks that share output_dir go on; one that sees another folder of that name ends all, and says why", async (t) => {
  const folder = temporaryFolder(t);
  const outputDir = path.join(folder, "run");
  const lock = await lockOutputDir(outputDir);
  t.after(() => lock.release());
  const shared = groupsOf(3).groups.map((group) => requireSharedOutput(group, outputDir));
  assert.deepEqual(await Promise.all(shared), [undefined, undefined, undefined]);

  const elsewhere = path.join(folder, "run of another machine");
  mkdirSync(elsewhere);
  const dirs = [outputDir, outputDir, elsewhere];
  const errors = await Promise.all(
    groupsOf(3).groups.map((group, rank) =>
      requireSharedOutput(group, dirs[rank]!).catch((error: Error) => error),
    ),
  );
  const message =
    /output_dir .*run of another machine: it is not the folder that rank 0 has locked \(\.lock-.* is not there\)$/;
  for (const [rank, error] of errors.entries()) {
    assert.ok(error instanceof Error);
    assert.match(error.message, message);
    assert.equal(error.message.startsWith("rank 2: "), rank < 2);
    assert.equal(isReported(error), rank < 2);
    const { hint } = error as { hint?: string };
    assert.match(hint!, /the same folder on all machines of the run, on a file system that they/);
  }
});
