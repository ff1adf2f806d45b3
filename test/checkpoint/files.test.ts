import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import {
  cleanTemporary,
  temporaryName,
  writeDirectoryAtomic,
  writeError,
  writeFileAtomic,
} from "#src/checkpoint/files.js";
import { DataError } from "#src/errors.js";
import { root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-files-"));
after(() => rmSync(dir, { recursive: true }));
const fresh = () => mkdtempSync(path.join(dir, "case-"));

test("a file is replaced as a whole", async () => {
  const folder = fresh();
  const file = path.join(folder, "config.json");
  await writeFileAtomic(file, "old");
  await writeFileAtomic(file, new TextEncoder().encode("new"));
  assert.equal(readFileSync(file, "utf8"), "new");
  assert.deepEqual(readdirSync(folder), ["config.json"]);
});

test("a file that cannot be written says why and leaves nothing", async () => {
  const folder = fresh();
  await assert.rejects(writeFileAtomic(path.join(folder, "no", "a.json"), "x"), {
    code: "ERR_SIMPER_CHECKPOINT",
    message: `${folder}/no/a.json: cannot be written: its folder does not exist`,
  });
  mkdirSync(path.join(folder, "busy"));
  await assert.rejects(writeFileAtomic(path.join(folder, "busy"), "x"), /busy: cannot be written/);
  assert.deepEqual(readdirSync(folder), ["busy"]);
});

test("a folder appears complete, and replaces an older one", async () => {
  const folder = fresh();
  const target = path.join(folder, "checkpoint-5");
  await writeDirectoryAtomic(target, async (temporary) => {
    assert.equal(existsSync(target), false);
    assert.match(path.basename(temporary), /^\.tmp-\d+-\d+-\d+-checkpoint-5$/);
    mkdirSync(path.join(temporary, "sub"));
    writeFileSync(path.join(temporary, "sub", "a"), "1");
  });
  assert.equal(readFileSync(path.join(target, "sub", "a"), "utf8"), "1");
  await writeDirectoryAtomic(target, async (temporary) =>
    writeFileSync(path.join(temporary, "b"), "2"),
  );
  assert.deepEqual(readdirSync(target), ["b"]);
  assert.deepEqual(readdirSync(folder), ["checkpoint-5"]);
});

test("a folder whose filling fails leaves the older one as it was", async () => {
  const folder = fresh();
  const target = path.join(folder, "checkpoint-5");
  await writeDirectoryAtomic(target, async (temporary) =>
    writeFileSync(path.join(temporary, "a"), "1"),
  );
  const cause = new DataError("rows.jsonl:3: no prompt");
  const failing = writeDirectoryAtomic(target, async (temporary) => {
    writeFileSync(path.join(temporary, "b"), "2");
    throw cause;
  });
  await assert.rejects(failing, (error) => error === cause);
  assert.deepEqual(readdirSync(target), ["a"]);
  assert.deepEqual(readdirSync(folder), ["checkpoint-5"]);
});

test("a run killed inside a save leaves no checkpoint, and the next run removes the rest", async () => {
  const folder = fresh();
  const module = pathToFileURL(path.join(root, "dist/checkpoint/files.js")).href;
  const script = `
    import { writeDirectoryAtomic } from ${JSON.stringify(module)};
    import { writeFileSync } from "node:fs";
    setInterval(() => {}, 1000);
    await writeDirectoryAtomic(process.argv[1] + "/checkpoint-1", async (temporary) => {
      writeFileSync(temporary + "/half", "x");
      console.log("half");
      await new Promise(() => {});
    });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script, folder], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  // While the other process lives its files are left alone.
  assert.deepEqual(await cleanTemporary(folder), []);
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal(existsSync(path.join(folder, "checkpoint-1")), false);
  writeFileSync(path.join(folder, ".tmp-notes"), "not ours");
  const removed = await cleanTemporary(folder);
  assert.equal(removed.length, 1);
  assert.deepEqual(readdirSync(folder), [".tmp-notes"]);
});

test("cleaning spares what this process is writing, not what an earlier one with its pid left", async () => {
  const folder = fresh();
  const current = temporaryName(path.join(folder, "current"));
  writeFileSync(current, "");
  writeFileSync(path.join(folder, `.tmp-${process.pid}-1-0-older`), "");
  assert.deepEqual(await cleanTemporary(folder), [`.tmp-${process.pid}-1-0-older`]);
  assert.deepEqual(readdirSync(folder), [path.basename(current)]);
  assert.deepEqual(await cleanTemporary(path.join(folder, "none")), []);
});

test("what the system refuses is said in words, with a remedy", () => {
  const cases: [string, RegExp][] = [
    ["ENOSPC", /^out\/a: cannot be written: no space is left on the device$/],
    ["EACCES", /permission denied$/],
    ["EROFS", /the file system is read-only$/],
    ["EDQUOT", /the disk quota is used up$/],
    ["ENOTDIR", /a part of its path is a file$/],
  ];
  for (const [code, message] of cases) {
    const error = writeError("out/a", Object.assign(new Error("x"), { code }));
    assert.match(error.message, message);
    assert.ok((error as { hint?: string }).hint, code);
  }
  assert.match(writeError("out/a", new Error("odd")).message, /^out\/a: cannot be written: odd$/);
});
