import assert from "node:assert/strict";
import {
  copyFileSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { openPieces } from "#src/checkpoint/piece-source.js";
import {
  type FlatTensor,
  parsePieceIndex,
  pieceFile,
  pieceIndex,
  pieceIndexFile,
  piecesWithin,
} from "#src/checkpoint/pieces.js";
import { SafetensorsWriter } from "#src/checkpoint/safetensors-writer.js";
import { CheckpointError } from "#src/errors.js";

function folder(t: TestContext): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), "simper-pieces-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Whole numbers below n, the same for the same seed. */
function randomOf(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

/** Blocks as a model has them: tensors one after another, with padding after some, and each with its values. */
interface Block {
  readonly tensors: readonly FlatTensor[];
  readonly used: number;
  readonly values: readonly Float32Array[];
}

const size = (shape: readonly number[]) => shape.reduce((product, extent) => product * extent, 1);

function randomBlocks(random: (n: number) => number): Block[] {
  return Array.from({ length: 1 + random(3) }, (_, b) => {
    let offset = 0;
    const tensors = Array.from({ length: 1 + random(6) }, (_, i) => {
      const shape = random(3) === 0 ? [1 + random(200)] : [1 + random(20), 1 + random(40)];
      const tensor = { name: `m.block.${b}.tensor.${i}`, shape, offset };
      offset += size(shape);
      if (random(2) === 0) offset = Math.ceil(offset / 32) * 32;
      return tensor;
    });
    const values = tensors.map(({ shape }) =>
      Float32Array.from({ length: size(shape) }, () => random(2 ** 24) / 2 ** 20),
    );
    return { tensors, used: offset, values };
  });
}

/** Elements of the flat buffer that N ranks cut into equal parts, multiples of 32, and the part of one. */
function partOf({ used }: Block, rank: number, ranks: number) {
  const part = Math.ceil(used / (ranks * 32)) * 32;
  return { begin: rank * part, end: (rank + 1) * part };
}

const bytesOf = (values: Float32Array) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Writes the blocks as `ranks` processes do. */
async function write(dir: string, blocks: readonly Block[], ranks: number): Promise<void> {
  const piecesOf = (rank: number) =>
    blocks.flatMap((block) => piecesWithin(block.tensors, partOf(block, rank, ranks)));
  for (let rank = 0; rank < ranks; rank++) {
    const pieces = piecesOf(rank).filter(({ begin, end }) => end > begin);
    const values = new Map(
      blocks.flatMap(({ tensors, values }) => tensors.map(({ name }, i) => [name, values[i]!])),
    );
    const whole = ranks === 1;
    const file = whole ? "state.safetensors" : pieceFile("state", rank, ranks);
    const writer = await SafetensorsWriter.create(
      path.join(dir, file),
      pieces.map(({ name, shape, begin, end }) => ({
        name,
        dtype: "F32",
        shape: whole ? shape : [end - begin],
      })),
    );
    for (const { name, begin, end } of pieces) {
      await writer.write(name, bytesOf(values.get(name)!.subarray(begin, end)));
    }
    await writer.finish();
  }
  if (ranks === 1) return;
  const index = pieceIndex("state", ranks, piecesOf);
  writeFileSync(path.join(dir, pieceIndexFile("state")), JSON.stringify(index));
}

for (const writers of [1, 2, 3, 4, 5]) {
  test(`what ${writers} ranks wrote, 1 to 5 read: every element once, at its place`, async (t) => {
    for (let seed = 1; seed <= 8; seed++) {
      const dir = folder(t);
      const random = randomOf(seed * 100 + writers);
      const blocks = randomBlocks(random);
      await write(dir, blocks, writers);
      const source = await openPieces(dir, "state");
      t.after(() => source.close());
      const shapes = blocks.flatMap(({ tensors }) =>
        tensors.map(({ name, shape }) => [name, shape] as const),
      );
      assert.deepEqual([...source.names()].sort(), shapes.map(([name]) => name).sort());
      for (const [name, shape] of shapes)
        assert.deepEqual(source.info(name), { ...source.info(name), dtype: "F32", shape });
      for (const readers of [1, 2, 3, 4, 5]) {
        for (const block of blocks) {
          const flat = new Float32Array(partOf(block, readers - 1, readers).end).fill(Number.NaN);
          for (let rank = 0; rank < readers; rank++) {
            const part = partOf(block, rank, readers);
            for (const { name, begin, end, at } of piecesWithin(block.tensors, part)) {
              const into = flat.subarray(part.begin + at, part.begin + at + end - begin);
              assert.ok(into.every(Number.isNaN), "no element is read twice");
              await source.read(name, 4 * begin, 4 * (end - begin), bytesOf(into));
            }
          }
          for (const [i, { offset, shape }] of block.tensors.entries())
            assert.deepEqual(flat.subarray(offset, offset + size(shape)), block.values[i]);
        }
      }
      // Any range of bytes, across the borders of files too.
      for (let tries = 0; tries < 20; tries++) {
        const block = blocks[random(blocks.length)]!;
        const i = random(block.tensors.length);
        const expected = bytesOf(block.values[i]!);
        const begin = random(expected.length);
        const length = random(expected.length - begin + 1);
        const into = new Uint8Array(length);
        await source.read(block.tensors[i]!.name, begin, length, into);
        assert.deepEqual(into, expected.slice(begin, begin + length));
      }
    }
  });
}

test("a thousand files are read with few of them open", async (t) => {
  const dir = folder(t);
  const shape = [1000, 32];
  const values = Float32Array.from({ length: size(shape) }, (_, i) => i);
  const block = {
    tensors: [{ name: "w", shape, offset: 0 }],
    used: values.length,
    values: [values],
  };
  await write(dir, [block], 1000);
  const source = await openPieces(dir, "state");
  t.after(() => source.close());
  const into = new Float32Array(values.length);
  await source.read("w", 0, into.byteLength, bytesOf(into));
  assert.deepEqual(into, values);
  const { readdirSync, readlinkSync } = await import("node:fs");
  const open = readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(dir);
    } catch {
      return false;
    }
  });
  assert.ok(open.length <= 40, `${open.length} files are open`);
});

/** State of 3 ranks: `a` has 300 elements, of which ranks 0, 1 and 2 have 128, 128 and 44; `b` ends rank 2's. */
async function sample(t: TestContext): Promise<string> {
  const dir = folder(t);
  const tensors = [
    { name: "a", shape: [30, 10], offset: 0 },
    { name: "b", shape: [50], offset: 320 },
  ];
  const values = tensors.map(({ shape }) => new Float32Array(size(shape)));
  await write(dir, [{ tensors, used: 384, values }], 3);
  return dir;
}

type Index = {
  shapes: Record<string, unknown>;
  pieces: Record<string, { file: string; begin: number; end: number }[]>;
};

const index = pieceIndexFile("state");
const spoilt: readonly [string, (index: Index) => unknown, RegExp][] = [
  ["is no JSON", () => "{", /state\.safetensors\.index\.json: not valid JSON/],
  ["is a list", () => [], /expected "shapes" and "pieces", maps by tensor name/],
  ["has no shapes", ({ pieces }) => ({ pieces }), /expected "shapes" and "pieces"/],
  ["lacks the first piece", (i) => i.pieces.a!.shift(), /tensor "a" lacks its elements \[0, 128\)/],
  [
    "lacks a piece in the middle",
    (i) => i.pieces.a!.splice(1, 1),
    /tensor "a" lacks its elements \[128, 256\)/,
  ],
  ["lacks the last piece", (i) => i.pieces.a!.pop(), /tensor "a" lacks its elements \[256, 300\)/],
  [
    "has overlapping pieces",
    (i) => Object.assign(i.pieces.a![1]!, { begin: 100 }),
    /tensor "a" has its elements \[100, 128\) twice/,
  ],
  [
    "has a piece beyond the end",
    (i) => Object.assign(i.pieces.a![2]!, { end: 301 }),
    /tensor "a" has pieces up to element 301 of 300/,
  ],
  [
    "names a file twice for a tensor",
    (i) => Object.assign(i.pieces.a![1]!, { file: i.pieces.a![0]!.file }),
    /tensor "a" is named twice for state-00001-of-00003\.safetensors/,
  ],
  ["has no pieces of a tensor", (i) => delete i.pieces.b, /tensor "b" has no list of pieces/],
  ["has no shape of a tensor", (i) => delete i.shapes.b, /tensor "b" has pieces and no shape/],
  [
    "has a shape that is none",
    (i) => Object.assign(i.shapes, { b: [-1] }),
    /tensor "b" has a shape that is no list of whole numbers/,
  ],
  [
    "names a file elsewhere",
    (i) => Object.assign(i.pieces.a![0]!, { file: "../state.safetensors" }),
    /tensor "a" has the piece \{"file":"\.\.\/state.*expected \{file, begin, end\}, a file beside the index/,
  ],
  [
    "has an empty piece",
    (i) => Object.assign(i.pieces.a![0]!, { end: 0 }),
    /tensor "a" has the piece .*and begin < end/,
  ],
  [
    "names a file that is not there",
    (i) => Object.assign(i.pieces.a![0]!, { file: "gone.safetensors" }),
    /gone\.safetensors: there is no such file or folder/,
  ],
  [
    "moves the border of two pieces",
    (i) => {
      Object.assign(i.pieces.a![0]!, { end: 100 });
      Object.assign(i.pieces.a![1]!, { begin: 100 });
    },
    /state-00001-of-00003\.safetensors: the piece of tensor "a" has shape \[128\], expected \[100\]/,
  ],
  [
    "swaps the files of two tensors",
    (i) => {
      i.pieces.c = [{ file: i.pieces.a![0]!.file, begin: 0, end: 128 }];
      i.shapes.c = [128];
    },
    /tensor "c" has a piece in .*state-00001-of-00003\.safetensors, which does not hold it/,
  ],
  [
    "forgets a tensor",
    (i) => {
      delete i.pieces.b;
      delete i.shapes.b;
    },
    /state-00003-of-00003\.safetensors: holds a piece of tensor "b" that the index does not name/,
  ],
];
for (const [name, change, message] of spoilt) {
  test(`an index that ${name} is refused before anything is read`, async (t) => {
    const dir = await sample(t);
    const file = path.join(dir, index);
    const fields = JSON.parse(readFileSync(file, "utf8")) as Index;
    const result = change(fields);
    const replaced =
      typeof result === "string" ||
      (Array.isArray(result) && result.length === 0) ||
      (typeof result === "object" && result !== null && "pieces" in result);
    const text = replaced ? result : fields;
    writeFileSync(file, typeof text === "string" ? text : JSON.stringify(text));
    await assert.rejects(openPieces(dir, "state"), (error) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("an index of lists in lists is refused as any other", () => {
  const deep = "[".repeat(50_000) + "]".repeat(50_000);
  assert.throws(
    () => parsePieceIndex("index.json", `{"shapes":{"a":[1]},"pieces":{"a":[${deep}]}}`),
    {
      code: "ERR_SIMPER_CHECKPOINT",
      message: /^index\.json: tensor "a" has the piece lists in lists in lists; expected \{file, /,
    },
  );
});

test("a file of pieces that is cut short is refused before anything is read", async (t) => {
  const dir = await sample(t);
  const file = path.join(dir, pieceFile("state", 1, 3));
  truncateSync(file, readFileSync(file).length - 4);
  await assert.rejects(openPieces(dir, "state"), {
    code: "ERR_SIMPER_CHECKPOINT",
    message:
      /state-00002-of-00003\.safetensors: tensor "a": its data ends at byte .* the file is cut short/,
    hint: /resume from another checkpoint/,
  });
});

test("a file of pieces that is missing is refused before anything is read", async (t) => {
  const dir = await sample(t);
  renameSync(path.join(dir, pieceFile("state", 2, 3)), path.join(dir, "elsewhere"));
  await assert.rejects(openPieces(dir, "state"), {
    message: /state-00003-of-00003\.safetensors: there is no such file/,
  });
});

test("pieces of different types are refused", async (t) => {
  const dir = await sample(t);
  const file = path.join(dir, pieceFile("state", 1, 3));
  const writer = await SafetensorsWriter.create(file, [{ name: "a", dtype: "BF16", shape: [128] }]);
  await writer.write("a", new Uint8Array(256));
  await writer.finish();
  await assert.rejects(openPieces(dir, "state"), {
    message: /state-00002-of-00003\.safetensors: the piece of tensor "a" is BF16, others are F32/,
  });
});

test("a request beyond the end of a tensor is refused", async (t) => {
  const source = await openPieces(await sample(t), "state");
  t.after(() => source.close());
  const into = new Uint8Array(16);
  await assert.rejects(source.read("b", 192, 16, into), {
    message: /tensor "b" has 200 bytes; received a request for \[192, 208\) into 16/,
  });
  await assert.rejects(source.read("c", 0, 4, into), { message: /there is no tensor "c"/ });
});

test("the file of one process is read where there is no index, and named where there is nothing", async (t) => {
  const dir = await sample(t);
  copyFileSync(path.join(dir, pieceFile("state", 0, 3)), path.join(dir, "one.safetensors"));
  const source = await openPieces(dir, "one");
  assert.deepEqual(source.names(), ["a"]);
  await source.close();
  await assert.rejects(openPieces(dir, "none"), { message: /none\.safetensors: there is no such/ });
});
