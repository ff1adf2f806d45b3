import assert from "node:assert/strict";
import { test } from "node:test";
import { ContractError, DeviceError } from "#src/errors.js";
import { enqueueLongWork, LONG_BYTES, LONG_SIDE, openAll } from "./support.js";

function longMatrices(all: ReturnType<typeof openAll>) {
  return [0, 1, 2].map(() => all.arena.tensor("f32", [LONG_SIDE, LONG_SIDE]));
}

test("stream: work runs in the order it was enqueued, copies included", async () => {
  using all = openAll();
  const x = all.arena.tensor("f32", [1000]);
  const y = all.arena.tensor("f32", [1000]);
  const seen: Promise<unknown>[] = [];
  for (let i = 0; i < 2000; i++) {
    all.stream.fill(x, i);
    all.stream.convert(y, x);
    all.stream.fill(x, -1);
    if (i % 500 === 0) seen.push(all.stream.read(y));
  }
  const firsts = (await Promise.all(seen)).map((array) => (array as Float32Array)[999]);
  assert.deepEqual(firsts, [0, 500, 1000, 1500]);
  assert.equal((await all.stream.read(y))[0], 1999);
});

test("stream: the event loop stays free while ops run", async () => {
  using all = openAll({ bytes: LONG_BYTES });
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  enqueueLongWork(all.stream, longMatrices(all));
  assert.equal(ticks, 0, "enqueueing returns before the work is done");
  await all.stream.done();
  clearInterval(timer);
  assert.ok(ticks >= 3, `${ticks} timer ticks while the stream worked`);
});

test("stream: a failure skips what follows, is reported once, and then all is well", async () => {
  using all = openAll();
  const weight = all.arena.tensor("f32", [3, 2]);
  const y = all.arena.tensor("f32", [1, 2]);
  const token = all.arena.tensor("i32", [1]);
  all.stream.fill(weight, 1);
  all.stream.write(token, Int32Array.of(3)); // rows are 0, 1 and 2
  all.stream.embeddingForward(y, token, weight);
  all.stream.fill(weight, 2); // skipped
  all.stream.write(token, Int32Array.of(0)); // skipped
  await assert.rejects(
    all.stream.done(),
    (error: unknown) =>
      error instanceof ContractError && /^embedding_forward: tokens\[0\] is 3/.test(error.message),
  );
  await all.stream.done();
  assert.deepEqual(await all.stream.read(weight), new Float32Array(6).fill(1));
  assert.deepEqual(await all.stream.read(token), Int32Array.of(3));
  all.stream.write(token, Int32Array.of(2));
  all.stream.embeddingForward(y, token, weight);
  assert.deepEqual(await all.stream.read(y), Float32Array.of(1, 1));
});

test("stream: a failure stays until somebody awaits, and a read reports it, too", async () => {
  using all = openAll();
  const weight = all.arena.tensor("f32", [3, 2]);
  const y = all.arena.tensor("f32", [1, 2]);
  const token = all.arena.tensor("i32", [1]);
  all.stream.write(token, Int32Array.of(-5));
  all.stream.embeddingForward(y, token, weight);
  await new Promise((resolve) => setTimeout(resolve, 20));
  all.stream.fill(y, 1);
  await assert.rejects(all.stream.read(y), { name: "ContractError", message: /tokens\[0\] is -5/ });
  assert.deepEqual(await all.stream.read(y), new Float32Array(2));
});

test("stream: one stream's failure is none of another's", async () => {
  using all = openAll();
  using other = all.device.stream();
  const weight = all.arena.tensor("f32", [3, 2]);
  const token = all.arena.tensor("i32", [1]);
  const y = all.arena.tensor("f32", [1, 2]);
  all.stream.write(token, Int32Array.of(9));
  all.stream.embeddingForward(y, token, weight);
  await other.done();
  await assert.rejects(all.stream.done(), ContractError);
});

test("stream: dispose drops queued work and rejects what waits for it", async () => {
  using all = openAll({ bytes: LONG_BYTES });
  const doomed = all.device.stream();
  enqueueLongWork(doomed, longMatrices(all), 200);
  const waiting = doomed.done();
  doomed.dispose();
  doomed.dispose(); // twice is once
  await assert.rejects(
    waiting,
    (error: unknown) =>
      error instanceof DeviceError && error.message === "the stream was closed before it got here",
  );
  const x = all.arena.tensor("f32", [0]);
  assert.throws(() => doomed.fill(x, 0), {
    name: "ContractError",
    message: "fill: the stream was disposed",
  });
  assert.throws(() => doomed.done(), {
    name: "ContractError",
    message: /this stream was disposed/,
  });
});

test("stream: opened and closed many times, idle or not", async () => {
  using all = openAll();
  const x = all.arena.tensor("f32", [16]);
  for (let i = 0; i < 200; i++) {
    const stream = all.device.stream();
    stream.fill(x, i);
    if (i % 3 === 0) await stream.done();
    stream.dispose();
  }
});

test("stream: two of them work side by side on one device", async () => {
  using all = openAll();
  using other = all.device.stream();
  const x = all.arena.tensor("f32", [50_000]);
  const y = all.arena.tensor("f32", [50_000]);
  for (let i = 0; i < 100; i++) {
    all.stream.fill(x, i);
    other.fill(y, -i);
  }
  const [a, b] = await Promise.all([all.stream.read(x), other.read(y)]);
  assert.equal(a[49_999], 99);
  assert.equal(b[49_999], -99);
});
