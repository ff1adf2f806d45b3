import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { root } from "../support/paths.js";

// What a child process or a worker runs: a device with more work queued than it will live to see.
const PRELUDE = `
  import { openDevice } from "#src/native/index.js";
  const device = openDevice("cpu", { threads: 2 });
  const stream = device.stream();
  const arena = device.arena(3 * 4 * 768 * 768, "work");
  const [c, a, b] = [0, 1, 2].map(() => arena.tensor("f32", [768, 768]));
  stream.fill(a, 1);
  stream.fill(b, 1 / 768);
  const enqueue = (n) => { for (let i = 0; i < n; i++) stream.matmul(c, a, b, "nn"); };
`;

/** Runs a module in a process of its own; fails when it hangs. */
function runChild(code: string): { status: number | null; signal: string | null; output: string } {
  const child = spawnSync(process.execPath, ["--input-type=module", "--eval", PRELUDE + code], {
    cwd: root,
    encoding: "utf8",
    timeout: 30_000,
    killSignal: "SIGKILL",
  });
  return { status: child.status, signal: child.signal, output: child.stdout + child.stderr };
}

function assertEnds(code: string, status: number, output: RegExp): void {
  const child = runChild(code);
  assert.deepEqual(
    { status: child.status, signal: child.signal },
    { status, signal: null },
    child.output,
  );
  assert.match(child.output, output);
}

test("lifetime: process.exit with queued work ends with the code it was given", () => {
  assertEnds(`enqueue(2000); console.log("queued"); process.exit(7);`, 7, /^queued\n$/);
});

test("lifetime: a program that forgets to dispose ends by itself", () => {
  assertEnds(`enqueue(3); await stream.done(); console.log("done");`, 0, /^done\n$/);
  assertEnds(`enqueue(2000); console.log("left behind");`, 0, /^left behind\n$/);
});

test("lifetime: an await keeps the process alive until it settles", () => {
  assertEnds(
    `enqueue(10); stream.read(c).then((x) => console.log("c is", Math.round(x[0])));`,
    0,
    /^c is 1\n$/,
  );
});

test("lifetime: a failure nobody handles ends the process as Node does, with the message", () => {
  assertEnds(
    `const token = device.arena(64, "token").tensor("i32", [1]);
     stream.write(token, Int32Array.of(4000));
     stream.embeddingForward(c.slice(0, 1), token, a);
     stream.done();`,
    1,
    /ContractError: embedding_forward: tokens\[0\] is 4000, expected 0 <= tokens < 768/,
  );
});

/** Runs a module on a worker thread and resolves with the messages it posted. */
function runWorker(code: string, terminate = false): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    // A data: module belongs to no package, so the import is by address.
    const entry = new URL("../../dist/native/index.js", import.meta.url);
    const source = PRELUDE.replace("#src/native/index.js", entry.href);
    const head = `import { parentPort } from "node:worker_threads";\n`;
    const url = `data:text/javascript,${encodeURIComponent(head + source + code)}`;
    const worker = new Worker(new URL(url));
    const messages: unknown[] = [];
    worker.on("message", (message) => {
      messages.push(message);
      if (terminate) void worker.terminate();
    });
    worker.on("error", reject);
    worker.on("exit", () => resolve(messages));
  });
}

test("lifetime: two worker threads, a device each, at the same time", async () => {
  const compute = (value: number) => `
    stream.fill(a, ${value});
    enqueue(5);
    const x = await stream.read(c);
    stream.dispose(); arena.dispose(); device.dispose();
    parentPort.postMessage(Math.round(x[0]));
  `;
  const results = await Promise.all([runWorker(compute(2)), runWorker(compute(3))]);
  assert.deepEqual(results, [[2], [3]]);
});

test("lifetime: a worker that is terminated with queued work takes nothing down", async () => {
  for (let i = 0; i < 3; i++) {
    const messages = await runWorker(`enqueue(2000); parentPort.postMessage("queued");`, true);
    assert.deepEqual(messages, ["queued"]);
  }
});
