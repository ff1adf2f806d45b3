import assert from "node:assert/strict";
import { test } from "node:test";
import { openDevice } from "#src/native/index.js";

test("stream: the profile counts the calls of each op and starts anew when taken", async (t) => {
  const device = openDevice("cpu", { threads: 1 });
  const stream = device.stream();
  const arena = device.arena(4096, "profile");
  t.after(() => {
    stream.dispose();
    arena.dispose();
    device.dispose();
  });
  const x = arena.tensor("f32", [16]);
  const y = arena.tensor("f32", [16]);
  for (let i = 0; i < 3; i++) stream.fill(x, i);
  stream.convert(y, x);
  await stream.done();
  const calls = new Map(stream.takeProfile().map((time) => [time.op, time.calls]));
  assert.equal(calls.get("fill"), 3);
  assert.equal(calls.get("convert"), 1);
  assert.deepEqual(stream.takeProfile(), []);
});
