// Indexes of pieces that many ranks wrote: what is accepted makes up every tensor, each element once.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { parsePieceIndex } from "../../dist/checkpoint/pieces.js";
import { mutateBytes, mutateValue, NUMBERS } from "./random.mjs";

export const extension = ".json";
export const exitCode = 1;

function index(random) {
  const ranks = 1 + random.below(4);
  const [shapes, pieces] = [{}, {}];
  for (let n = random.below(4); n > 0; n--) {
    const name = random.chance(0.1) ? random.pick(["__proto__", "7", ""]) : `exp_avg.w${n}`;
    const shape = Array.from({ length: random.below(3) }, () => random.below(9));
    const elements = shape.reduce((product, extent) => product * extent, 1);
    const part = Math.max(1, Math.ceil(elements / ranks));
    const list = [];
    for (let begin = 0; begin < elements; begin += part) {
      const file = `optimizer-0000${list.length + 1}-of-0000${ranks}.safetensors`;
      list.push({ file, begin, end: Math.min(elements, begin + part) });
    }
    Object.defineProperty(shapes, name, { value: shape, enumerable: true, configurable: true });
    Object.defineProperty(pieces, name, { value: list, enumerable: true, configurable: true });
  }
  return { metadata: { ranks }, shapes, pieces };
}

export function generate(random) {
  let fields = index(random);
  for (const list of Object.values(fields.pieces)) {
    for (const piece of list) {
      if (random.chance(0.05)) piece.begin = random.pick(NUMBERS);
      if (random.chance(0.05)) piece.end = random.pick(NUMBERS);
      if (random.chance(0.03)) piece.file = random.pick(["", ".", "..", "a/b", "/", 3, null]);
    }
    if (random.chance(0.1)) list.pop();
    if (random.chance(0.1)) list.reverse(); // their order says nothing
    if (random.chance(0.1) && list.length > 0) list.push(random.pick(list));
  }
  if (random.chance(0.4)) fields = mutateValue(random, fields);
  let text = Buffer.from(JSON.stringify(fields) ?? "");
  if (random.chance(0.1))
    text = mutateBytes(random, text, ['"begin":', "[]", "1e999", "\\ud800", "\ufeff"]);
  return random.chance(0.05) ? text.subarray(0, random.below(text.length + 1)) : text;
}

export async function run(file) {
  const { shapes, pieces } = parsePieceIndex(file, await readFile(file, "utf8"));
  assert.deepEqual(Object.keys(shapes).sort(), Object.keys(pieces).sort());
  for (const [name, shape] of Object.entries(shapes)) {
    let elements = shape.reduce((product, extent) => product * extent, 1);
    const sorted = [...pieces[name]].sort((a, b) => a.begin - b.begin);
    for (const { begin, end } of sorted) {
      assert.ok(begin < end);
      elements -= end - begin;
    }
    assert.equal(elements, 0, `${name} is covered`);
    for (let i = 1; i < sorted.length; i++) assert.equal(sorted[i].begin, sorted[i - 1].end);
  }
  return "read";
}
