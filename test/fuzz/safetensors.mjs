// Headers and sizes of safetensors files: what opens must be read to its last byte, the rest is refused.
import assert from "node:assert/strict";
import { openSafetensors } from "../../dist/checkpoint/safetensors.js";
import { mutateBytes, mutateValue, NUMBERS } from "./random.mjs";

export const extension = ".safetensors";
export const exitCode = 1;

const DTYPES = ["F32", "BF16", "F16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "f32", "F4", ""];

function header(random) {
  const fields = random.chance(0.5) ? { __metadata__: { format: "pt" } } : {};
  let offset = 0;
  for (let n = random.below(5); n > 0; n--) {
    const shape = Array.from({ length: random.below(4) }, () => random.below(5));
    const bytes = 4 * shape.reduce((product, extent) => product * extent, 1);
    fields[`model.layers.${n}.weight`] = {
      dtype: "F32",
      shape,
      data_offsets: [offset, offset + bytes],
    };
    offset += bytes;
  }
  return { fields, bytes: offset };
}

export function generate(random) {
  let { fields, bytes } = header(random);
  if (random.chance(0.6)) fields = mutateValue(random, fields);
  for (const value of Object.values(fields)) {
    if (typeof value !== "object" || value === null || !random.chance(0.15)) continue;
    if (random.chance(0.5)) value.dtype = random.pick(DTYPES);
    if (random.chance(0.5)) value.shape = [random.pick(NUMBERS), random.pick(NUMBERS)];
    if (random.chance(0.5)) value.data_offsets = [random.pick(NUMBERS), random.pick(NUMBERS)];
  }
  let json = JSON.stringify(fields);
  if (random.chance(0.1)) json = json.replaceAll("model.layers.2", "model.layers.1"); // names twice
  if (random.chance(0.1)) json = "[".repeat(random.below(20000)) + json;
  let text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  if (random.chance(0.2))
    text = mutateBytes(random, text, ['"shape":', "[]", "1e999", "\\ud800", "\ufeff"]);
  const length = Buffer.alloc(8);
  const said = random.chance(0.15)
    ? random.pick([
        0n,
        1n,
        2n ** 31n,
        2n ** 53n,
        2n ** 60n,
        2n ** 63n,
        2n ** 64n - 1n,
        BigInt(text.length + 1),
      ])
    : BigInt(text.length);
  length.writeBigUInt64LE(said);
  if (random.chance(0.1)) bytes += random.pick([-4, -1, 1, 4, 100]);
  const file = Buffer.concat([length, text, Buffer.alloc(Math.max(0, bytes), 1)]);
  return random.chance(0.1) ? file.subarray(0, random.below(file.length + 1)) : file;
}

export async function run(file, bytes) {
  const opened = await openSafetensors(file);
  try {
    let total = 0;
    for (const name of opened.names()) {
      const { byteLength, offset } = opened.info(name);
      assert.ok(offset + byteLength <= bytes.length, `${name} lies inside the file`);
      for await (const piece of opened.chunks(name, 64)) total += piece.length;
    }
    const said = Number(bytes.readBigUInt64LE(0));
    assert.equal(total, bytes.length - 8 - said, "the tensors cover the data exactly");
    return "read";
  } finally {
    await opened.close();
  }
}
