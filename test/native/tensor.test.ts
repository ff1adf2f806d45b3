import assert from "node:assert/strict";
import { test } from "node:test";
import { ContractError } from "#src/errors.js";
import { DTYPES, hostArray, sizeOf } from "#src/native/index.js";
import { openAll } from "./support.js";

const counting = (n: number) => Float32Array.from({ length: n }, (_, i) => i);

test("tensor: what is written is read back, in every dtype and every bit", async () => {
  using all = openAll();
  for (const dtype of DTYPES) {
    for (const shape of [[0], [1], [7], [3, 5], [2, 3, 4, 5]]) {
      const tensor = all.arena.tensor(dtype, shape);
      const array = hostArray(dtype, tensor.size);
      const bytes = new Uint8Array(array.buffer);
      for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 89 + 17) & 255;
      all.stream.write(tensor, array);
      const back = await all.stream.read(tensor);
      assert.equal(back.constructor, array.constructor);
      assert.deepEqual(new Uint8Array(back.buffer), bytes, `${dtype} (${shape})`);
      assert.equal(tensor.bytes, tensor.size * sizeOf(dtype));
    }
  }
});

test("tensor: write takes a copy, and readInto fills the caller's own array", async () => {
  using all = openAll();
  const x = all.arena.tensor("f32", [4]);
  const array = Float32Array.of(1, 2, 3, 4);
  all.stream.write(x, array);
  array.fill(9);
  const target = new Uint8Array(16); // raw bytes are fine, too
  await all.stream.readInto(x, target);
  assert.deepEqual(new Float32Array(target.buffer), Float32Array.of(1, 2, 3, 4));
  // A part of a larger buffer is that part.
  all.stream.write(x, new Float32Array(10).fill(7).subarray(3, 7));
  assert.deepEqual(await all.stream.read(x), Float32Array.of(7, 7, 7, 7));
});

test("tensor: an array of another size is refused with both sizes", () => {
  using all = openAll();
  const x = all.arena.tensor("bf16", [3, 5]);
  const message = (what: string) =>
    `${what}: the array has 28 bytes, expected 30 = size of the tensor`;
  assert.throws(() => all.stream.write(x, new Uint16Array(14)), {
    name: "ContractError",
    message: message("write"),
  });
  assert.throws(() => all.stream.readInto(x, new Uint16Array(14)), { message: message("read") });
});

test("view: another shape, dtype and stride over the same bytes", async () => {
  using all = openAll();
  const x = all.arena.tensor("f32", [4, 6]);
  all.stream.write(x, counting(24));
  // Columns 2 to 4 of every row: doubled here, seen there.
  const columns = x.view([4, 3], { byteOffset: 8, rowStride: 6 });
  all.stream.fill(columns, -1);
  const expected = counting(24).map((value, i) => (i % 6 >= 2 && i % 6 < 5 ? -1 : value));
  assert.deepEqual(await all.stream.read(x), expected);
  const flat = x.view([24]);
  assert.deepEqual(await all.stream.read(flat), expected);
  const halves = x.view([4, 12], { dtype: "bf16" });
  assert.equal(halves.bytes, x.bytes);
  assert.equal((await all.stream.read(halves))[2 * 3 + 1], 0xbf80); // upper half of -1
});

test("view: outside its tensor, unaligned or with overlapping rows is refused", () => {
  using all = openAll();
  const x = all.arena.tensor("f32", [4, 6]);
  all.arena.tensor("f32", [100]); // memory of the arena that is not the tensor's
  const refused: [number[], Parameters<typeof x.view>[1]][] = [
    [[25], {}],
    [[24], { byteOffset: 4 }],
    [[1], { byteOffset: -4 }],
    [[1], { byteOffset: 96 }],
    [[2], { byteOffset: 2 }], // not a multiple of the element
    [[4, 6], { rowStride: 7 }],
    [[4, 6], { rowStride: 5 }],
  ];
  for (const [shape, options] of refused) {
    assert.throws(() => x.view(shape, options), {
      name: "ContractError",
      message: /^view: \d+ bytes from byte -?\d+ do not lie inside the tensor's 96 bytes$/,
    });
  }
  assert.equal(x.view([0], { byteOffset: 96 }).size, 0);
});

test("view: a strided one is for ops, not for copies", () => {
  using all = openAll();
  const strided = all.arena.tensor("f32", [4, 6]).view([4, 3], { rowStride: 6 });
  for (const copy of [
    () => all.stream.write(strided, new Float32Array(12)),
    () => all.stream.readInto(strided, new Float32Array(12)),
  ]) {
    assert.throws(copy, {
      name: "ContractError",
      message: /the tensor is a strided view, expected a dense one/,
    });
  }
});

test("window: moves over the rows; work already enqueued keeps the rows it had", async () => {
  using all = openAll();
  const x = all.arena.tensor("f32", [6, 2]);
  const window = x.window();
  for (const begin of [0, 2, 4]) {
    window.set(begin, 2);
    assert.deepEqual(window.shape, [2, 2]);
    all.stream.fill(window, begin);
  }
  assert.deepEqual(await all.stream.read(x), Float32Array.of(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4));
  assert.deepEqual(await all.stream.read(window.set(3, 1)), Float32Array.of(2, 2));
  assert.deepEqual(await all.stream.read(x.slice(5, 6)), Float32Array.of(4, 4));
  assert.equal(window.set(6, 0).size, 0);
});

test("window: rows outside its base are refused, and it stays where it was", () => {
  using all = openAll();
  const x = all.arena.tensor("f32", [6, 2]);
  const window = x.window().set(1, 2);
  for (const [begin, rows] of [
    [5, 2],
    [-1, 2],
    [0, 7],
    [7, 0],
    [0, -1],
  ] as const) {
    assert.throws(() => window.set(begin, rows), {
      name: "ContractError",
      message: `window: rows [${begin}, ${begin + rows}) of a tensor with 6 rows`,
    });
  }
  assert.throws(() => window.set(0.5, 1), {
    message: "window: rows [0.5, +1), expected whole numbers",
  });
  assert.deepEqual(window.shape, [2, 2]);
  assert.throws(() => x.slice(4, 7), ContractError);
});
