import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { openSafetensors } from "#src/checkpoint/safetensors.js";
import type { LossType } from "#src/loss/index.js";
import { fixture } from "../support/paths.js";
import { lossAndGradients, readPairs, type Way } from "./support.js";

interface Expected {
  pairs: {
    id: string;
    chosen: { logps: number[]; mean: number };
    rejected: { logps: number[]; mean: number };
  }[];
  simper: { loss: number; grad_norm: number };
  sft: { loss: number; tokens: number; grad_norms: Record<string, number> };
}

function run(folder: string, model: string, way?: Way, lossType?: LossType) {
  const pairs = readPairs(fixture("model", folder, "pairs.jsonl"));
  return lossAndGradients(fixture("model", folder, model), pairs, way, lossType);
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
