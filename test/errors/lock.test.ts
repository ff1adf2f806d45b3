import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { lockFolder } from "#src/checkpoint/lock.js";
import { SimperError } from "#src/errors.js";
import { root } from "../support/paths.js";
import {
  checkpointSteps,
  gqaModel,
  outputOf,
  runCli,
  startCli,
  temporaryFolder,
  trajectoryRecipe,
  words,
} from "../train/support.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-lock-"));
after(() => rmSync(dir, { recursive: true }));
const fresh = () => mkdtempSync(path.join(dir, "case-"));
const locks = (folder: string) => readdirSync(folder).filter((name) => name.startsWith(".lock-"));

/** A process that locks `folder`, says whether it could, and keeps the lock until it is killed. */
function locker(folder: string, then = "await new Promise(() => setInterval(() => {}, 1e3));") {
  const module = pathToFileURL(path.join(root, "dist/checkpoint/lock.js")).href;
  const script = `
    import { lockFolder } from ${JSON.stringify(module)};
    try {
      await lockFolder(process.argv[1]);
      console.log("locked");
    } catch (error) {
      console.log(error.message);
      process.exit(0);
    }
    ${then}`;
  return spawn(process.execPath, ["--input-type=module", "-e", script, folder], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

async function firstLine(child: ReturnType<typeof locker>): Promise<string> {
  const [text] = await once(child.stdout!, "data");
  return String(text).trim();
}

test("a folder is locked once, by this process or another, until it is released", async () => {
  const folder = path.join(fresh(), "a", "b");
  const lock = await lockFolder(folder);
  assert.equal(locks(folder).length, 1);
  await assert.rejects(lockFolder(folder), (error) => {
    assert.ok(error instanceof SimperError);
    assert.match(
      error.message,
      /^output_dir .*b: another run of this process is training into it \(.*\.lock-\d+-\d+\)$/,
    );
    return true;
  });
  assert.equal(locks(folder).length, 1, "the failed try takes nothing away");
  const message = await firstLine(locker(folder));
  assert.match(message, new RegExp(`b: process ${process.pid} is training into it`));
  lock.release();
  assert.equal(existsSync(path.dirname(folder)), false, "folders it created for nothing go");
});

test("the lock of a process that was killed is taken over", async () => {
  const folder = fresh();
  const child = locker(folder);
  assert.equal(await firstLine(child), "locked");
  await assert.rejects(lockFolder(folder), {
    code: "ERR_SIMPER_CHECKPOINT",
    message: new RegExp(`process ${child.pid} is training into it`),
    hint: /wait until it ends or stop it, or choose another output_dir/,
  });
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal(locks(folder).length, 1);
  // A live process that got the pid of a dead one does not hold its lock.
  writeFileSync(path.join(folder, `.lock-${process.ppid}-1`), "");
  const lock = await lockFolder(folder);
  assert.deepEqual(locks(folder).length, 1);
  lock.release();
  assert.deepEqual(readdirSync(folder), []);
});

test("process.exit releases the lock", async () => {
  const folder = fresh();
  const child = locker(folder, "process.exit(3);");
  assert.deepEqual(await once(child, "exit"), [3, null]);
  assert.deepEqual(readdirSync(folder), []);
});

test("of many that start together at most one gets the folder", async () => {
  const folder = fresh();
  const children = Array.from({ length: 6 }, () => locker(folder));
  const messages = await Promise.all(children.map(firstLine));
  assert.ok(messages.filter((message) => message === "locked").length <= 1, messages.join("\n"));
  for (const child of children) child.kill("SIGKILL");
});

test("a second run in one output_dir is refused; the first goes on undisturbed", async (t) => {
  const outputDir = path.join(temporaryFolder(t), "run");
  const command = (changes: object) => [
    "train",
    trajectoryRecipe,
    ...words({
      model_name_or_path: gqaModel,
      output_dir: outputDir,
      max_steps: 100_000,
      ...changes,
    }),
  ];
  const first = startCli(command({}));
  await first.printed(/^step 1\//m);
  const second = await runCli(command({ max_steps: 1 }));
  assert.equal(second.code, 1, second.stderr);
  assert.match(
    second.stderr,
    new RegExp(
      `simper-native: output_dir .*run: process ${first.child.pid} is training into it.*\\n {2}wait until`,
    ),
  );
  assert.doesNotMatch(second.stderr, /\n\s+at /);
  // However quick the machine, the first run is still at it: it is asked to end, and has lost nothing.
  first.child.kill("SIGINT");
  const { code } = await first.ended;
  assert.equal(code, 130, first.output.stderr);
  const { steps } = outputOf(outputDir);
  assert.deepEqual(
    steps.map(({ step }) => step),
    steps.map((_, i) => i + 1),
  );
  assert.deepEqual(checkpointSteps(outputDir), [steps.length]);
  assert.deepEqual(locks(outputDir), []);
});
