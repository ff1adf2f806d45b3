import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { openSafetensors } from "#src/checkpoint/safetensors.js";
import { packPairs, packSequences } from "#src/data/pack.js";
import type { TokenizedPair } from "#src/data/types.js";
import { type LossType, losses } from "#src/loss/index.js";
import { readModelShape } from "#src/model/index.js";
import type { BatchLimits } from "#src/train/buffers.js";
import { modelBlocks } from "#src/train/plan.js";
import { ResidentModel } from "#src/train/resident-model.js";
import { Session } from "#src/train/session.js";
import { fixture } from "../support/paths.js";

interface Row {
  id: string;
  chosen_input_ids: number[];
  chosen_labels: number[];
  rejected_input_ids: number[];
  rejected_labels: number[];
}

interface Expected {
  pairs: {
    id: string;
    chosen: { logps: number[]; mean: number };
    rejected: { logps: number[]; mean: number };
  }[];
  simper: { loss: number; grad_norm: number };
  sft: { loss: number; tokens: number; grad_norms: Record<string, number> };
}

function readPairs(folder: string): TokenizedPair[] {
  const lines = readFileSync(fixture("model", folder, "pairs.jsonl"), "utf8")
    .trim()
    .split("\n");
  return lines.map((line) => {
    const row = JSON.parse(line) as Row;
    const side = (name: "chosen" | "rejected") => ({
      ids: Int32Array.from(row[`${name}_input_ids`]),
      labels: Int32Array.from(row[`${name}_labels`]),
    });
    return { chosen: side("chosen"), rejected: side("rejected") };
  });
}

async function openFixture(
  folder: string,
  model: string,
  change: Partial<BatchLimits & { checkpointing: boolean }> = {},
) {
  const dir = fixture("model", folder, model);
  const shape = readModelShape(await readConfigFile(dir));
  const { checkpointing = false, ...limitChange } = change;
  const limits: BatchLimits = {
    tokens: 256,
    scored: 272,
    examples: 16,
    stepExamples: 16,
    groupRows: 64,
    positions: 128,
    pairs: true,
    ...limitChange,
  };
  const resident = new ResidentModel({
    device: "cpu",
    shape,
    blocks: modelBlocks(shape),
    dtype: "f32",
    training: true,
  });
  const session = new Session(resident, { limits, checkpointing });
  const source = await openSafetensors(dir);
  await resident.withMover((mover) => mover.load(source, resident.weights(), dir));
  await source.close();
  return { session, shape, limits };
}

/** Loss and gradients of all pairs, or of all tokens of the chosen sequences, over micro-batches. */
async function run(
  folder: string,
  model: string,
  change: Parameters<typeof openFixture>[2] & { prefixSharing?: boolean } = {},
  lossType: LossType = "SimPER",
) {
  const { prefixSharing = true, ...rest } = change;
  const loss = losses[lossType];
  const size = { pairs: lossType === "SimPER", ...rest };
  const { session, limits } = await openFixture(folder, model, size);
  try {
    const pairs = readPairs(folder);
    const sequences = pairs.map(({ chosen: { ids } }) => ({ ids, labels: ids }));
    const batches =
      lossType === "SimPER"
        ? packPairs(pairs, { maxTokens: limits.tokens, prefixSharing })
        : packSequences(sequences, { maxTokens: limits.tokens });
    const scoredTokens = sequences.reduce((sum, { ids }) => sum + ids.length - 1, 0);
    const scale = loss.scale({ examples: pairs.length, scoredTokens });
    const { stream, store, pass, buffers } = session;
    for (const block of store.blocks) stream.fill(block.grad, 0);
    let responses = 0;
    for (const batch of batches) {
      await pass.train(batch, { loss, scale }, responses);
      responses += batch.responses.length / 3;
    }
    const terms = await stream.read(buffers.tensor("losses").slice(0, responses));
    const total = Array.from(terms).reduce((sum, term) => sum + term, 0);
    const gradients = new Map<string, Float32Array>();
    for (const [b, block] of modelBlocks(await openShape(folder, model)).entries()) {
      for (const { name, shape, parts } of block.parameters) {
        const grad = (await stream.read(store.gradients(b)[name]!)) as Float32Array;
        const columns = shape.length === 2 ? shape[1]! : 1;
        let row = 0;
        for (const part of parts) {
          gradients.set(part.name, grad.subarray(row * columns, (row + part.rows) * columns));
          row += part.rows;
        }
      }
    }
    return { loss: total, gradients, scoredTokens };
  } finally {
    session.dispose();
    session.model.dispose();
  }
}

async function openShape(folder: string, model: string) {
  return readModelShape(await readConfigFile(fixture("model", folder, model)));
}

async function expected(folder: string) {
  const values = JSON.parse(
    readFileSync(fixture("model", folder, "expected.json"), "utf8"),
  ) as Expected;
  const file = await openSafetensors(fixture("model", folder, "expected.safetensors"));
  const gradients = new Map<string, Float32Array>();
  for (const name of file.names().filter((n) => n.startsWith("grad."))) {
    const bytes = new Uint8Array(file.info(name).byteLength);
    await file.read(name, 0, bytes.length, bytes);
    gradients.set(name.slice("grad.".length), new Float32Array(bytes.buffer));
  }
  await file.close();
  return { ...values, gradients };
}

function relativeError(got: Float32Array, want: Float32Array): number {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    error += (got[i]! - want[i]!) ** 2;
    norm += want[i]! ** 2;
  }
  return Math.sqrt(error / norm);
}

const cases = [
  ["llama-gqa", "model"],
  ["llama-tied", "model"],
  ["llama-tied", "model-sharded"],
  ["llama-tied", "model-f16"],
] as const;
const ways = {
  "packed with shared prompts": {},
  "separate sequences": { prefixSharing: false },
  "gradient checkpointing": { checkpointing: true },
  "one pair per micro-batch": { tokens: 128 },
  "responses longer than the logits workspace": { groupRows: 32 },
};

for (const [folder, model] of cases) {
  for (const [way, change] of Object.entries(ways)) {
    test(`${folder}/${model}: SimPER loss and every gradient follow transformers in float64 (${way})`, async () => {
      const want = await expected(folder);
      const got = await run(folder, model, change);
      assert.ok(
        Math.abs(got.loss - want.simper.loss) < 2e-6,
        `loss ${got.loss}, expected ${want.simper.loss}`,
      );
      assert.deepEqual([...got.gradients.keys()].sort(), [...want.gradients.keys()].sort());
      for (const [name, gradient] of want.gradients) {
        const error = relativeError(got.gradients.get(name)!, gradient);
        assert.ok(error < 2e-5, `${name}: relative error ${error}`); // f32 rounding through the layers
      }
    });
  }
}

for (const [folder, model] of cases) {
  for (const [way, change] of Object.entries({
    "packed sequences": {},
    "gradient checkpointing": { checkpointing: true },
    "responses longer than the logits workspace": { groupRows: 32 },
  })) {
    test(`${folder}/${model}: sft loss and every gradient norm follow transformers in float64 (${way})`, async () => {
      const { sft } = await expected(folder);
      const got = await run(folder, model, change, "sft");
      assert.equal(got.scoredTokens, sft.tokens);
      assert.ok(Math.abs(got.loss - sft.loss) < 1e-6 * sft.loss, `loss ${got.loss}, ${sft.loss}`);
      assert.deepEqual([...got.gradients.keys()].sort(), Object.keys(sft.grad_norms).sort());
      for (const [name, norm] of Object.entries(sft.grad_norms)) {
        const found = Math.hypot(...got.gradients.get(name)!);
        // f32 rounding through the layers
        assert.ok(Math.abs(found - norm) < 2e-5 * norm, `${name}: ${found}, expected ${norm}`);
      }
    });
  }
}
