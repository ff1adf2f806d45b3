import assert from "node:assert/strict";
import { existsSync, readFileSync, truncateSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { makeFolder } from "#src/checkpoint/files.js";
import { CheckpointError } from "#src/errors.js";
import { checkpointSteps, runRecipe, temporaryFolder, trajectory } from "../train/support.js";

for (const [name, message] of [
  ["run_state.json", "expected a JSON object; it is damaged"],
  ["trainer_state.json", "expected a JSON object; it is damaged"],
  [
    "optimizer.safetensors",
    'tensor ".*": its data ends at byte \\d+ of \\d+; the file is cut short',
  ],
] as const) {
  test(`resume: a damaged ${name} is one error that names the file`, async (t) => {
    const outputDir = temporaryFolder(t);
    const recipe = {
      ...trajectory({ maxSteps: 2, saveStrategy: "steps", saveSteps: 1 }),
      outputDir,
    };
    await runRecipe(recipe);
    const file = path.join(outputDir, "checkpoint-2", name);
    truncateSync(file, readFileSync(file).length - 5);
    await assert.rejects(runRecipe({ ...recipe, resumeFromCheckpoint: true }), (error: unknown) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(error.message, new RegExp(`^${file}: ${message}$`));
      assert.ok(error.hint);
      assert.deepEqual(checkpointSteps(outputDir), [1, 2], "nothing is moved or removed");
      return true;
    });
  });
}

test("makeFolder: makes what is missing, and ends where nothing can be made", async (t) => {
  const root = temporaryFolder(t);
  const deep = path.join(root, "a", "b", "c");
  assert.equal(await makeFolder(deep), path.join(root, "a"));
  assert.ok(existsSync(deep));
  assert.equal(await makeFolder(deep), undefined);
  await assert.rejects(makeFolder("/proc/none/run"), { code: "ENOENT" });
});
