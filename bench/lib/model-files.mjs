/** Writes a model directory with random weights: config.json and model.safetensors in bf16. */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { Random } from "../../scripts/quickstart/random.mjs";
import { configJson } from "./models.mjs";

/** @typedef {import("./models.mjs").BenchModel} BenchModel */

/** Standard deviation of every matrix, as transformers initializes them. */
const STD = 0.02;
const TABLE_BITS = 16;

/**
 * Names and shapes in the order of the file.
 * @param {BenchModel} model
 * @returns {{ name: string, shape: number[] }[]}
 */
export function tensorsOf(model) {
  const { hiddenSize: C, intermediateSize: F, numHeads: H, numKvHeads: K, vocabSize: V } = model;
  const D = C / H;
  /** @type {Record<string, number[]>} */
  const layer = {
    input_layernorm: [C],
    "self_attn.q_proj": [H * D, C],
    "self_attn.k_proj": [K * D, C],
    "self_attn.v_proj": [K * D, C],
    "self_attn.o_proj": [C, H * D],
    post_attention_layernorm: [C],
    "mlp.gate_proj": [F, C],
    "mlp.up_proj": [F, C],
    "mlp.down_proj": [C, F],
  };
  const layers = Array.from({ length: model.numLayers }, (_, l) =>
    Object.entries(layer).map(([name, shape]) => ({ name: `model.layers.${l}.${name}`, shape })),
  );
  return [
    { name: "model.embed_tokens", shape: [V, C] },
    ...layers.flat(),
    { name: "model.norm", shape: [C] },
    ...(model.tied ? [] : [{ name: "lm_head", shape: [V, C] }]),
  ].map(({ name, shape }) => ({ name: `${name}.weight`, shape }));
}

/**
 * Norms are one; matrices take their values from a table of normal numbers, at places drawn by a
 * xorshift generator [Marsaglia 2003]: a hundred million weights in a second.
 * @param {BenchModel} model
 * @param {string} folder
 */
export function writeModel(model, folder) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "config.json"), JSON.stringify(configJson(model), null, 2));
  const tensors = tensorsOf(model);
  const file = openSync(path.join(folder, "model.safetensors"), "w");
  try {
    writeSync(file, header(tensors));
    const table = normalTable();
    let state = 0x2545f491;
    for (const { shape } of tensors) {
      const bits = new Uint16Array(shape.reduce((product, extent) => product * extent, 1));
      if (shape.length === 1) bits.fill(bf16(1));
      else {
        for (let i = 0; i < bits.length; i++) {
          state ^= state << 13;
          state ^= state >>> 17;
          state ^= state << 5;
          bits[i] = /** @type {number} */ (table[state >>> (32 - TABLE_BITS)]);
        }
      }
      writeSync(file, bits);
    }
  } finally {
    closeSync(file);
  }
}

/** @param {readonly { name: string, shape: number[] }[]} tensors */
function header(tensors) {
  /** @type {Record<string, unknown>} */
  const entries = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const { name, shape } of tensors) {
    const begin = end;
    end += 2 * shape.reduce((product, extent) => product * extent, 1);
    entries[name] = { dtype: "BF16", shape, data_offsets: [begin, end] };
  }
  const json = JSON.stringify(entries);
  const padded = json.padEnd(8 * Math.ceil(json.length / 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, Buffer.from(padded, "latin1")]);
}

function normalTable() {
  const random = new Random(7);
  return Uint16Array.from({ length: 1 << TABLE_BITS }, () => bf16(STD * random.normal()));
}

/** Bits of a number in bf16, rounded to the nearest. @param {number} x */
function bf16(x) {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0] ?? 0;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
