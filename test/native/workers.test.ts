import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { openAll } from "./support.js";

// A device in a worker thread that goes round: a product, checked, everything disposed, a message.
const CODE = `
  import { parentPort, workerData } from "node:worker_threads";
  const { openDevice } = await import(workerData.api);
  const { value, rounds } = workerData;
  for (let round = 1; round <= rounds; round++) {
    const device = openDevice("cpu", { threads: 1 });
    const s = device.stream();
    const arena = device.arena(3 * 4 * 128 * 128, "worker");
    const [c, a, b] = [0, 1, 2].map(() => arena.tensor("f32", [128, 128]));
    s.fill(a, value);
    s.fill(b, 1 / 128);
    for (let i = 0; i < 20; i++) s.matmul(c, a, b, "nn");
    const result = await s.read(c);
    const wrong = result.filter((x) => Math.abs(x - value) > 1e-4).length;
    s.dispose();
    arena.dispose();
    device.dispose();
    parentPort.postMessage({ round, wrong });
  }
`;

interface Progress {
  readonly round: number;
  readonly wrong: number;
}

function goRound(value: number, rounds: number, terminateAt = 0) {
  const api = new URL("../../dist/native/index.js", import.meta.url).href;
  const url = new URL(`data:text/javascript,${encodeURIComponent(CODE)}`);
  const worker = new Worker(url, { workerData: { api, value, rounds } });
  const done = { rounds: 0, wrong: 0 };
  return new Promise<typeof done & { code: number }>((resolve, reject) => {
    worker.on("message", ({ round, wrong }: Progress) => {
      done.rounds = round;
      done.wrong += wrong;
      if (round === terminateAt) void worker.terminate();
    });
    worker.on("error", reject);
    worker.on("exit", (code) => resolve({ ...done, code }));
  });
}

test("workers: devices in several threads at once, one of them terminated in the middle", async () => {
  using all = openAll({ threads: 1 });
  const [first, killed, third] = await Promise.all([
    goRound(2, 20),
    goRound(3, 1_000_000, 5),
    goRound(4, 20),
  ]);
  assert.deepEqual(first, { rounds: 20, wrong: 0, code: 0 });
  assert.deepEqual(third, { rounds: 20, wrong: 0, code: 0 });
  assert.equal(killed.code, 1);
  assert.equal(killed.wrong, 0);
  // The main thread's device has noticed nothing.
  const x = all.arena.tensor("f32", [3]);
  all.stream.fill(x, 7);
  assert.deepEqual(await all.stream.read(x), Float32Array.of(7, 7, 7));
});

test("workers: a tensor of another thread is no tensor here", async () => {
  using all = openAll({ threads: 1 });
  const x = all.arena.tensor("f32", [2]);
  const copy = structuredClone(x); // what postMessage would deliver: a plain object, no tensor
  assert.throws(() => all.stream.fill(copy, 1), {
    name: "ContractError",
    message: "fill: argument 1 (x) is an object of class Object, expected a tensor",
  });
});
