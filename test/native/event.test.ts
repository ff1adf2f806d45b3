import assert from "node:assert/strict";
import { test } from "node:test";
import { ContractError } from "#src/errors.js";
import { openDevice } from "#src/native/index.js";
import { TEST_DEVICES } from "../ops/harness/devices.js";
import { enqueueLongWork, LONG_BYTES, LONG_SIDE } from "./support.js";

const name = TEST_DEVICES[0]!;

function openTwo(bytes = 2 ** 20) {
  const device = openDevice(name, { threads: 1 });
  const [a, b] = [device.stream(), device.stream()];
  const arena = device.arena(bytes, "events");
  return {
    device,
    a,
    b,
    arena,
    [Symbol.dispose]() {
      a.dispose();
      b.dispose();
      arena.dispose();
      device.dispose();
    },
  };
}

test("event: what waits comes after what was recorded, and what writes again after who has read", async () => {
  using all = openTwo(LONG_BYTES + 2 ** 22);
  const { a, b, arena, device } = all;
  const matrices = [0, 1, 2].map(() => arena.tensor("f32", [LONG_SIDE, LONG_SIDE]));
  const x = arena.tensor("f32", [1000]);
  const y = arena.tensor("f32", [500, 1000]);
  const [written, read] = [device.event(), device.event()];
  enqueueLongWork(a, matrices, 5); // so that b is there first
  for (let i = 0; i < 500; i++) {
    a.wait(read); // nothing to wait for in the first round
    a.fill(x, i);
    a.record(written);
    b.wait(written);
    b.convert(y.slice(i, i + 1).view([1000]), x);
    b.record(read);
  }
  const seen = (await b.read(y)) as Float32Array;
  for (let i = 0; i < 500; i++) {
    assert.equal(seen[1000 * i], i);
    assert.equal(seen[1000 * i + 999], i);
  }
});

test("event: a wait is for the last recording before it, whatever is recorded later", async () => {
  using all = openTwo(LONG_BYTES + 2 ** 20);
  const { a, b, arena, device } = all;
  const matrices = [0, 1, 2].map(() => arena.tensor("f32", [LONG_SIDE, LONG_SIDE]));
  const event = device.event();
  const later = device.event();
  const x = arena.tensor("f32", [10]);
  a.record(event);
  b.wait(event);
  b.fill(x, 3);
  b.record(later);
  enqueueLongWork(a, matrices, 5);
  a.wait(later); // would wait for itself if b waited for the next recording
  a.record(event);
  await a.done();
  assert.equal((await b.read(x))[0], 3);
});

test("event: a failure reaches those that wait, and nobody else", async () => {
  using all = openTwo();
  const { a, b, arena, device } = all;
  const [before, after] = [device.event(), device.event()];
  const weight = arena.tensor("f32", [3, 2]);
  const y = arena.tensor("f32", [1, 2]);
  const token = arena.tensor("i32", [1]);
  const x = arena.tensor("f32", [4]);
  a.fill(weight, 1);
  a.record(before);
  a.write(token, Int32Array.of(7));
  a.embeddingForward(y, token, weight);
  // Where a kernel reports indices, they are seen when the stream is waited for.
  if (name === "cpu") {
    a.record(after);
    b.wait(before);
    b.fill(x, 1);
    b.wait(after);
    b.fill(x, 2); // skipped
    const wrong = { name: "ContractError", message: /tokens\[0\] is 7/ };
    await assert.rejects(b.done(), wrong);
    await assert.rejects(a.done(), wrong);
    assert.deepEqual(await b.read(x), Float32Array.of(1, 1, 1, 1));
    a.record(after); // all is well again
    b.wait(after);
    b.fill(x, 3);
    assert.equal((await b.read(x))[0], 3);
  } else {
    await assert.rejects(a.done(), ContractError);
  }
});

test("event: a stream that is disposed before it records fails those that wait", async () => {
  using all = openTwo(LONG_BYTES + 2 ** 20);
  const { a, b, arena, device } = all;
  const matrices = [0, 1, 2].map(() => arena.tensor("f32", [LONG_SIDE, LONG_SIDE]));
  const event = device.event();
  const x = arena.tensor("f32", [4]);
  enqueueLongWork(a, matrices, 50);
  a.record(event);
  b.wait(event);
  b.fill(x, 1);
  const waiting = b.done();
  a.dispose();
  await assert.rejects(waiting, {
    name: "DeviceError",
    message: "wait: the stream was closed before it got here",
  });
});

test("event: a stream that waits can be disposed", async () => {
  using all = openTwo(LONG_BYTES + 2 ** 20);
  const { a, b, arena, device } = all;
  const matrices = [0, 1, 2].map(() => arena.tensor("f32", [LONG_SIDE, LONG_SIDE]));
  const event = device.event();
  enqueueLongWork(a, matrices, 50);
  a.record(event);
  b.wait(event);
  const waiting = b.done();
  b.dispose();
  await assert.rejects(waiting, { message: "the stream was closed before it got here" });
  await a.done();
});

test("event: belongs to the stream that records it, and to a device", async () => {
  using all = openTwo();
  const { a, b, device } = all;
  const event = device.event();
  a.record(event);
  assert.throws(() => b.record(event), {
    name: "ContractError",
    message: /^record: another stream has recorded this event before, expected one/,
  });
  const other = openDevice(name, { threads: 1 });
  const foreign = other.event();
  assert.throws(() => a.record(foreign), {
    name: "ContractError",
    message: "record: the event and the stream are of different devices",
  });
  a.wait(foreign); // never recorded
  event.dispose();
  assert.throws(() => b.wait(event), { name: "ContractError", message: /this event was disposed/ });
  await a.done();
  other.dispose();
});
