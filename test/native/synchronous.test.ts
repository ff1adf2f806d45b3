import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { ContractError } from "#src/errors.js";
import { openDevice } from "#src/native/index.js";
import { root } from "../support/paths.js";
import { openAll } from "./support.js";

test("a synchronous stream has run an op when its call returns", async () => {
  using all = openAll();
  using stream = all.device.stream({ synchronous: true });
  const x = all.arena.tensor("f32", [4]);
  stream.fill(x, 3);
  const host = new Float32Array(4);
  const read = stream.readInto(x, host);
  assert.deepEqual(host, Float32Array.of(3, 3, 3, 3), "there before the promise is settled");
  await read;
});

test("a synchronous stream throws at the call that failed, and only there", async () => {
  using all = openAll();
  using stream = all.device.stream({ synchronous: true });
  const weight = all.arena.tensor("f32", [3, 2]);
  const y = all.arena.tensor("f32", [1, 2]);
  const token = all.arena.tensor("i32", [1]);
  stream.fill(weight, 1);
  stream.write(token, Int32Array.of(3));
  assert.throws(
    () => stream.embeddingForward(y, token, weight),
    (error) =>
      error instanceof ContractError && /^embedding_forward: tokens\[0\] is 3/.test(error.message),
  );
  await stream.done();
  stream.write(token, Int32Array.of(2));
  stream.embeddingForward(y, token, weight);
  assert.deepEqual(await stream.read(y), Float32Array.of(1, 1));
});

// The same program with and without SIMPER_SYNC=1: where the error of the third op arrives.
const program = `
  import { openDevice } from ${JSON.stringify(pathToFileURL(path.join(root, "dist/native/index.js")).href)};
  const device = openDevice("cpu");
  const stream = device.stream();
  const arena = device.arena(4096, "test");
  const [weight, y, token] = [arena.tensor("f32", [3, 2]), arena.tensor("f32", [1, 2]), arena.tensor("i32", [1])];
  stream.write(token, Int32Array.of(7));
  try {
    stream.embeddingForward(y, token, weight);
  } catch (error) {
    console.log("at the call:", error.message);
  }
  await stream.done().catch((error) => console.log("at the wait:", error.message));`;
for (const [value, where] of [
  ["1", "at the call"],
  ["0", "at the wait"],
] as const) {
  test(`SIMPER_SYNC=${value}: an op's error comes ${where}`, () => {
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      ["--input-type=module", "-e", program],
      { encoding: "utf8", env: { ...process.env, SIMPER_SYNC: value } },
    );
    assert.equal(status, 0, stderr);
    assert.match(stdout, new RegExp(`^${where}: embedding_forward: tokens\\[0\\] is 7[^\\n]*\\n$`));
  });
}

test("a synchronous stream keeps nothing alive and joins", () => {
  for (let i = 0; i < 50; i++) {
    const device = openDevice("cpu", { threads: 1 });
    const stream = device.stream({ synchronous: true });
    const arena = device.arena(1 << 20, "test");
    stream.fill(arena.tensor("f32", [1000]), i);
    arena.dispose();
    stream.dispose();
    device.dispose();
  }
});
