import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import {
  openSafetensors,
  type Safetensors,
  type TensorEntry,
} from "#src/checkpoint/safetensors.js";
import { SafetensorsWriter } from "#src/checkpoint/safetensors-writer.js";
import { planShards } from "#src/checkpoint/shards.js";
import { root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-safetensors-"));
after(() => rmSync(dir, { recursive: true }));
let files = 0;

/** A file with this header text and this many bytes of data. */
function raw(header: string | Uint8Array, dataBytes: number, claimed?: bigint): string {
  const file = path.join(dir, `raw-${files++}.safetensors`);
  const body = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(claimed ?? BigInt(body.length));
  writeFileSync(file, Buffer.concat([length, body, Buffer.alloc(dataBytes, 7)]));
  return file;
}

async function refusal(file: string): Promise<string> {
  try {
    await (await openSafetensors(file)).close();
  } catch (error) {
    assert.equal((error as { code?: string }).code, "ERR_SIMPER_CHECKPOINT", String(error));
    return (error as Error).message.replaceAll(`${dir}/`, "");
  }
  assert.fail(`${file} was accepted`);
}

async function readAll(model: Safetensors, name: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(model.info(name).byteLength);
  await model.read(name, 0, bytes.length, bytes);
  return bytes;
}

/** Bytes that differ from tensor to tensor and from place to place. */
function pattern(name: string, length: number): Uint8Array {
  const seed = [...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7);
  return Uint8Array.from({ length }, (_, i) => (seed + i * 37) & 255);
}

const entries: TensorEntry[] = [
  { name: "embed.weight", dtype: "BF16", shape: [5, 3] },
  { name: "empty", dtype: "F32", shape: [0, 4] },
  { name: "0", dtype: "F32", shape: [2, 2] },
  { name: "scalar", dtype: "I64", shape: [] },
];
const bytesOf = { "embed.weight": 30, empty: 0, "0": 16, scalar: 8 } as Record<string, number>;

async function writeModel(file: string, which: readonly TensorEntry[] = entries): Promise<void> {
  const writer = await SafetensorsWriter.create(file, which);
  for (const { name } of which) {
    const bytes = pattern(name, bytesOf[name]!);
    await writer.write(name, bytes.subarray(0, 5)); // in pieces of uneven size
    if (bytes.length > 5) await writer.write(name, bytes.subarray(5));
  }
  await writer.finish();
}

test("what the writer writes the reader reads, byte for byte", async () => {
  const file = path.join(dir, "model.safetensors");
  await writeModel(file);
  const model = await openSafetensors(dir);
  assert.deepEqual(model.names().sort(), ["0", "embed.weight", "empty", "scalar"]);
  assert.deepEqual(model.metadata, { format: "pt" });
  for (const { name, dtype, shape } of entries) {
    const info = model.info(name);
    assert.deepEqual([info.dtype, info.shape], [dtype, shape]);
    assert.deepEqual(await readAll(model, name), pattern(name, bytesOf[name]!));
  }
  const part = new Uint8Array(4);
  await model.read("embed.weight", 11, 4, part);
  assert.deepEqual(part, pattern("embed.weight", 30).subarray(11, 15));
  const pieces: number[][] = [];
  for await (const piece of model.chunks("0", 7)) pieces.push([...piece]);
  assert.deepEqual(
    pieces.map((piece) => piece.length),
    [7, 7, 2],
  );
  assert.deepEqual(pieces.flat(), [...pattern("0", 16)]);
  await assert.rejects(
    model.read("0", 10, 7, new Uint8Array(7)),
    /tensor "0" has 16 bytes; received a request for \[10, 17\)/,
  );
  await assert.rejects(model.read("0", 0, 8, new Uint8Array(7)), /8 bytes do not fit into 7/);
  assert.throws(() => model.info("nope"), /there is no tensor "nope"/);
  await model.close();
});

test("the header is padded so that the data starts at a multiple of 8", async () => {
  const file = path.join(dir, "padded.safetensors");
  await writeModel(file);
  const model = await openSafetensors(file);
  assert.equal(model.info("embed.weight").offset % 8, 0);
  await model.close();
});

test("offsets beyond 4 GiB are read right", async () => {
  const big = 5 * 2 ** 30;
  const header = JSON.stringify({
    hole: { dtype: "U8", shape: [big], data_offsets: [0, big] },
    tail: { dtype: "U8", shape: [4], data_offsets: [big, big + 4] },
  });
  const file = raw(header, 0);
  const start = 8 + header.length;
  truncateSync(file, start + big + 4); // sparse: takes no space
  const handle = await open(file, "r+");
  await handle.write(Uint8Array.of(1, 2, 3, 4), 0, 4, start + big);
  await handle.close();
  const model = await openSafetensors(file);
  assert.equal(model.info("tail").offset, start + big);
  assert.deepEqual(await readAll(model, "tail"), Uint8Array.of(1, 2, 3, 4));
  const edge = new Uint8Array(2);
  await model.read("hole", big - 2, 2, edge);
  assert.deepEqual(edge, Uint8Array.of(0, 0));
  await model.close();
  rmSync(file);
});

const f32 = (begin: number, end: number, shape = [(end - begin) / 4]) => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});
const damaged: [string, () => string, RegExp][] = [
  [
    "a file of three bytes",
    () => {
      const file = path.join(dir, "tiny.safetensors");
      writeFileSync(file, "abc");
      return file;
    },
    /has 3 bytes, fewer than the 8/,
  ],
  [
    "a header longer than the file",
    () => raw("{}", 0, 1000n),
    /the header claims 1000 bytes; expected at most 2 in a file of 10/,
  ],
  [
    "a header of 2^63 bytes",
    () => raw("{}", 0, 1n << 63n),
    /the header claims 9223372036854775808 bytes/,
  ],
  ["no JSON", () => raw("{nope", 0), /the header is not valid JSON/],
  ["a JSON list", () => raw("[]", 0), /the header is not a JSON object/],
  ["bytes that are no UTF-8", () => raw(Uint8Array.of(0x7b, 0xff, 0x7d), 0), /not valid UTF-8/],
  [
    "a repeated name",
    () => raw(`{"a":${JSON.stringify(f32(0, 4))},"a":${JSON.stringify(f32(0, 4))}}`, 4),
    /the header names "a" twice/,
  ],
  [
    "a name repeated with an escape",
    () => raw(`{"a":${JSON.stringify(f32(0, 4))},"\\u0061":${JSON.stringify(f32(0, 4))}}`, 4),
    /the header names "a" twice/,
  ],
  [
    "an entry that is no map",
    () => raw('{"a":3}', 0),
    /tensor "a": expected \{dtype, shape, data_offsets\}/,
  ],
  [
    "an unknown dtype",
    () => raw('{"a":{"dtype":"F12","shape":[1],"data_offsets":[0,4]}}', 4),
    /tensor "a": dtype "F12" is not known; expected one of BOOL/,
  ],
  [
    "a dtype from Object.prototype",
    () => raw('{"a":{"dtype":"toString","shape":[1],"data_offsets":[0,4]}}', 4),
    /dtype "toString" is not known/,
  ],
  [
    "a negative size",
    () => raw('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', 4),
    /shape \[-1\] is not a list of whole numbers/,
  ],
  [
    "a shape of lists in lists",
    () => {
      const deep = "[".repeat(50_000) + "]".repeat(50_000);
      return raw(`{"a":{"dtype":"F32","shape":${deep},"data_offsets":[0,4]}}`, 4);
    },
    /shape lists in lists in lists is not a list of whole numbers/,
  ],
  [
    "a fractional size",
    () => raw('{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,6]}}', 6),
    /shape \[1\.5\] is not a list/,
  ],
  [
    "offsets the wrong way round",
    () => raw('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', 4),
    /data_offsets \[4,0\] are not \[begin, end\]/,
  ],
  [
    "offsets past the end",
    () => raw(JSON.stringify({ a: f32(0, 8) }), 4),
    /tensor "a": its data ends at byte 8 of 4; the file is cut short/,
  ],
  [
    "a size that does not match",
    () => raw(JSON.stringify({ a: f32(0, 8, [3]) }), 8),
    /tensor "a": \[3\] F32 takes 12 bytes, data_offsets hold 8/,
  ],
  [
    "a product beyond 2^53",
    () => raw(JSON.stringify({ a: f32(0, 8, [2 ** 40, 2 ** 40]) }), 8),
    /takes more than 2\^53 bytes/,
  ],
  [
    "an overlap",
    () => raw(JSON.stringify({ a: f32(0, 8), b: f32(4, 12) }), 12),
    /tensor "b" overlaps tensor "a"/,
  ],
  [
    "a gap",
    () => raw(JSON.stringify({ a: f32(0, 4), b: f32(8, 12) }), 12),
    /tensor "b" leaves a gap after tensor "a"/,
  ],
  [
    "a gap at the start",
    () => raw(JSON.stringify({ a: f32(4, 8) }), 8),
    /tensor "a" leaves a gap after the header/,
  ],
  [
    "bytes after the last tensor",
    () => raw(JSON.stringify({ a: f32(0, 4) }), 9),
    /5 bytes follow tensor "a"; expected the end of the file/,
  ],
  [
    "metadata that is no text",
    () => raw('{"__metadata__":{"a":1}}', 0),
    /__metadata__ is not a map of text to text/,
  ],
];
for (const [name, make, message] of damaged) {
  test(`a damaged file is refused: ${name}`, async () => {
    const file = make();
    const text = await refusal(file);
    assert.match(text, message);
    assert.ok(text.includes(path.basename(file)), text);
  });
}

test("a sharded model reads like a single file", async () => {
  const folder = mkdtempSync(path.join(dir, "sharded-"));
  const plan = planShards(entries, 31);
  assert.deepEqual(
    plan.shards.map(({ file }) => file),
    ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
  );
  assert.equal(plan.index?.metadata.total_size, 54);
  for (const { file, entries } of plan.shards) await writeModel(path.join(folder, file), entries);
  writeFileSync(path.join(folder, "model.safetensors.index.json"), JSON.stringify(plan.index));
  const model = await openSafetensors(folder);
  for (const { name } of entries) {
    assert.deepEqual(await readAll(model, name), pattern(name, bytesOf[name]!));
    assert.equal(path.basename(model.info(name).file), plan.index?.weight_map[name]);
  }
  await model.close();
});

test("shards hold at most the limit, except for a tensor that is larger", () => {
  const sizes = [3, 4, 12, 1, 9];
  const tensors = sizes.map((n, i) => ({ name: `t${i}`, dtype: "U8" as const, shape: [n] }));
  const plan = planShards(tensors, 10);
  assert.deepEqual(
    plan.shards.map(({ entries }) => entries.map(({ shape }) => shape[0])),
    [[3, 4], [12], [1, 9]],
  );
  assert.equal(planShards(tensors, 29).index, undefined);
  assert.equal(planShards(tensors, 29).shards[0]?.file, "model.safetensors");
  assert.equal(planShards(tensors, 28).shards.length, 2);
});

test("an index that does not fit its files is refused", async () => {
  const folder = mkdtempSync(path.join(dir, "index-"));
  const index = path.join(folder, "model.safetensors.index.json");
  await writeModel(path.join(folder, "a.safetensors"));
  const cases: [unknown, RegExp][] = [
    ["{", /index\.json: not valid JSON/],
    [{}, /expected "weight_map", a map of tensor to file name/],
    [
      { weight_map: { "0": "missing.safetensors" } },
      /missing\.safetensors, named by .*index\.json, cannot be opened: there is no such file/,
    ],
    [
      { weight_map: { "0": "../a.safetensors" } },
      /tensor "0": expected the name of a file beside the index, received "\.\.\/a\.safetensors"/,
    ],
    [
      { weight_map: { "0": "a.safetensors", other: "a.safetensors" } },
      /index\.json: tensor "other" is not in .*a\.safetensors/,
    ],
  ];
  for (const [content, message] of cases) {
    writeFileSync(index, typeof content === "string" ? content : JSON.stringify(content));
    assert.match(await refusal(folder), message);
  }
  await writeModel(path.join(folder, "b.safetensors"), [entries[2]!]);
  writeFileSync(
    index,
    JSON.stringify({
      weight_map: { "0": "a.safetensors", scalar: "a.safetensors", x: "b.safetensors" },
    }),
  );
  assert.match(
    await refusal(folder),
    /tensor "0" is in both .*a\.safetensors and .*b\.safetensors/,
  );
});

test("a place without safetensors is refused", async () => {
  assert.match(
    await refusal(path.join(dir, "nowhere")),
    /nowhere: there is no such file or folder/,
  );
  const folder = mkdtempSync(path.join(dir, "bare-"));
  assert.match(
    await refusal(folder),
    /holds neither model\.safetensors nor model\.safetensors\.index\.json/,
  );
});

test("a file that is cut while it is open is noticed", async () => {
  const file = raw(JSON.stringify({ a: f32(0, 8) }), 8);
  const model = await openSafetensors(file);
  truncateSync(file, model.info("a").offset + 4);
  await assert.rejects(model.read("a", 0, 8, new Uint8Array(8)), /it was cut while being read/);
  await model.close();
});

test("a file that is not finished never appears, and its temporary one is removed", async () => {
  const folder = mkdtempSync(path.join(dir, "unfinished-"));
  const file = path.join(folder, "m.safetensors");
  const start = () => SafetensorsWriter.create(file, entries);
  const four = new Uint8Array(4);

  const outOfOrder = await start();
  await assert.rejects(
    outOfOrder.write("0", four),
    /expected at most 30 bytes of "embed\.weight", received 4 bytes of "0"/,
  );
  const tooMuch = await start();
  await assert.rejects(
    tooMuch.write("embed.weight", new Uint8Array(31)),
    /expected at most 30 bytes/,
  );
  const early = await start();
  await early.write("embed.weight", four);
  assert.equal(existsSync(file), false);
  await assert.rejects(
    early.finish(),
    /m\.safetensors: cannot be finished: "embed\.weight" is not complete/,
  );
  await assert.rejects(early.finish(), /cannot be finished: "embed\.weight" is not complete/);
  const over = await SafetensorsWriter.create(file, [{ name: "a", dtype: "U8", shape: [4] }]);
  await over.write("a", four);
  await assert.rejects(over.write("a", four), /expected no more data, received 4 bytes of "a"/);
  assert.deepEqual(readdirSync(folder), []);
});

test("the writer refuses names that would make a broken file", async () => {
  const file = path.join(dir, "names.safetensors");
  await assert.rejects(
    SafetensorsWriter.create(file, [entries[0]!, entries[0]!]),
    /"embed\.weight" is used twice or reserved/,
  );
  await assert.rejects(
    SafetensorsWriter.create(file, [{ ...entries[0]!, name: "__metadata__" }]),
    /used twice or reserved/,
  );
  await assert.rejects(
    SafetensorsWriter.create(path.join(dir, "no", "m"), entries),
    /no\/m: cannot be written: its folder does not exist/,
  );
});

test("a disk that refuses becomes a CheckpointError and leaves no temporary file", () => {
  const folder = mkdtempSync(path.join(dir, "full-"));
  const module = pathToFileURL(path.join(root, "dist/checkpoint/safetensors-writer.js")).href;
  const script = `
    import { SafetensorsWriter } from ${JSON.stringify(module)};
    const entries = [{ name: "a", dtype: "U8", shape: [1 << 20] }];
    const writer = await SafetensorsWriter.create(process.argv[1] + "/m.safetensors", entries);
    try {
      await writer.write("a", new Uint8Array(1 << 20));
      console.log("written");
    } catch (error) {
      console.log(error.code, error.message, error.hint);
    }`;
  // 64 blocks of 1 KiB: the file system says EFBIG, the same path as a full disk.
  const run = spawnSync(
    "bash",
    [
      "-c",
      'ulimit -f 64; exec "$0" --input-type=module -e "$1" "$2"',
      process.execPath,
      script,
      folder,
    ],
    { encoding: "utf8" },
  );
  assert.match(
    run.stdout,
    /^ERR_SIMPER_CHECKPOINT .*m\.safetensors: cannot be written: the file is larger than the limit.*Raise `ulimit -f`/,
    run.stderr,
  );
  assert.deepEqual(readdirSync(folder), []);
});
