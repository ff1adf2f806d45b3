import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { lockFolder } from "#src/checkpoint/lock.js";
import { processSpace } from "#src/checkpoint/process.js";
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
function locker(
  folder: string,
  then = "await new Promise(() => setInterval(() => {}, 1e3));",
  wrapper: readonly string[] = [],
) {
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
  const words = [...wrapper, process.execPath, "--input-type=module", "-e", script, folder];
  return spawn(words[0]!, words.slice(1), {
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
      /^output_dir .*b: another run of this process is training into it \(.*\.lock-\d+-\d+-[0-9a-f]{12}\)$/,
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
  writeFileSync(path.join(folder, `.lock-${process.ppid}-1-${processSpace()}`), "");
  const lock = await lockFolder(folder);
  assert.deepEqual(locks(folder).length, 1);
  lock.release();
  assert.deepEqual(readdirSync(folder), []);
});

test("the lock of another machine or container counts until a person removes it", async () => {
  const folder = fresh();
  const file = path.join(folder, ".lock-17-4711-0123456789ab");
  const refusal = (who: string) => ({
    code: "ERR_SIMPER_CHECKPOINT",
    message: `output_dir ${folder}: ${who}, of another machine or container, is training into it (${file})`,
    hint: `wait until it ends, or choose another output_dir; if it is gone (killed, its machine restarted), remove its lock: rm '${file}'`,
  });
  writeFileSync(file, "process 17 on host node-3");
  await assert.rejects(lockFolder(folder), refusal("process 17 on host node-3"));
  writeFileSync(file, ""); // put down, its text still to come
  await assert.rejects(lockFolder(folder), refusal("process 17"));
  assert.deepEqual(locks(folder), [path.basename(file)], "it is left as it is");
  rmSync(file);
  (await lockFolder(folder)).release();
});

test("a run in another pid namespace is seen, and sees this one", async (t) => {
  // As root, or as anyone where the system lets users have namespaces.
  const isolated = [[], ["--user", "--map-root-user"]]
    .map((user) => ["unshare", ...user, "--pid", "--fork", "--kill-child", "--mount-proc"])
    .find(([command, ...words]) => spawnSync(command!, [...words, "true"]).status === 0);
  if (!isolated) {
    t.skip("skipped: no right to make a pid namespace; the test above writes such a lock itself");
    return;
  }
  const folder = fresh();
  const child = locker(folder, undefined, isolated);
  assert.equal(await firstLine(child), "locked");
  const [name] = locks(folder);
  assert.match(readFileSync(path.join(folder, name!), "utf8"), /^process \d+ on host ./);
  await assert.rejects(lockFolder(folder), { message: /of another machine or container/ });
  child.kill("SIGKILL");
  await once(child, "exit");
  rmSync(path.join(folder, name!));
  const lock = await lockFolder(folder);
  const message = await firstLine(locker(folder, undefined, isolated));
  assert.match(message, new RegExp(`process ${process.pid} on host .*, of another machine`));
  lock.release();
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
