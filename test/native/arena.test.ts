import assert from "node:assert/strict";
import { test } from "node:test";
import { ContractError, MemoryError } from "#src/errors.js";
import { alignedBytes } from "#src/native/index.js";
import { openAll } from "./support.js";

test("arena: hands out zeros, rounded up to cache lines, and says how much is used", async () => {
  using all = openAll({ bytes: 1024 });
  const x = all.arena.tensor("f32", [3, 5]);
  assert.deepEqual(await all.stream.read(x), new Float32Array(15));
  assert.equal(alignedBytes("f32", [3, 5]), 64);
  assert.equal(all.arena.used, 64);
  all.arena.tensor("bf16", [33]);
  assert.equal(all.arena.used, 64 + 128);
});

test("arena: a tensor that does not fit is a MemoryError with the name and both sizes", () => {
  using all = openAll({ bytes: 256 });
  all.arena.tensor("f32", [32]);
  assert.throws(
    () => all.arena.tensor("f32", [33]),
    (error: unknown) =>
      error instanceof MemoryError &&
      error.message ===
        'arena "test" is full: a tensor of 132 bytes does not fit into the 128 left of 256',
  );
  all.arena.tensor("f32", [32]); // what fits still fits
  assert.equal(all.arena.used, 256);
});

test("arena: sizes and shapes that are none are refused", () => {
  using all = openAll();
  assert.throws(() => all.device.arena(-1, "x"), {
    name: "MemoryError",
    message: 'arena "x": -1 bytes, expected a whole number >= 0',
  });
  assert.throws(() => all.device.arena(1.5, "x"), MemoryError);
  assert.throws(() => all.device.arena(2 ** 52, "planets"), {
    name: "MemoryError",
    message: /cannot reserve 4503599627370496 bytes/,
  });
  assert.throws(() => all.arena.tensor("f32", [2.5]), {
    name: "ContractError",
    message: /extent 2\.5/,
  });
  assert.throws(() => all.arena.tensor("f32", [-1]), {
    name: "ContractError",
    message: /extent -1/,
  });
  assert.throws(() => all.arena.tensor("f32", []), {
    name: "ContractError",
    message: "a tensor has 0 dimensions, expected 1 to 4",
  });
  assert.throws(() => all.arena.tensor("f32", [1, 1, 1, 1, 1]), ContractError);
  assert.throws(() => all.arena.tensor("f32", [2 ** 40, 2 ** 40]), MemoryError, "no overflow");
});

test("arena: after dispose its tensors are stale, whatever came after them", async () => {
  using all = openAll();
  const lost = all.device.arena(1024, "lost");
  const stale = lost.tensor("f32", [4]);
  const staleView = stale.view([2]);
  lost.dispose();
  lost.dispose(); // twice is once
  assert.throws(() => lost.used, { name: "ContractError", message: /this arena was disposed/ });
  assert.throws(() => lost.tensor("f32", [1]), ContractError);
  // New tensors take the slots of the old ones, but never their ids.
  const next = all.device.arena(1024, "next");
  const fresh = [next.tensor("f32", [4]), next.tensor("f32", [4])];
  assert.ok(fresh.every(({ id }) => id !== stale.id && id !== staleView.id));
  assert.throws(() => all.stream.fill(stale, 1), {
    name: "ContractError",
    message: "fill: argument 1 is a tensor that was disposed; keep its arena while it is used",
  });
  for (const use of [
    () => all.stream.write(stale, new Float32Array(4)),
    () => all.stream.readInto(stale, new Float32Array(4)),
    () => stale.view([1]),
    () => stale.window(),
  ]) {
    assert.throws(use, { name: "ContractError", message: /this tensor was disposed/ });
  }
  assert.deepEqual(await all.stream.read(fresh[0]!), new Float32Array(4));
  next.dispose();
});

test("arena: dispose while work on it is queued is safe", async () => {
  using all = openAll();
  const short = all.device.arena(4 * 2 ** 20, "short-lived");
  const x = short.tensor("f32", [2 ** 20]);
  for (let i = 0; i < 50; i++) all.stream.fill(x, i);
  short.dispose();
  await all.stream.done();
});
