// Tokens per second of training steps on a GPU: random models of the shapes of SmolLM2-135M, Llama-3.2-1B and
// Llama-3-8B, random pairs, no files. What the GPU could do at best is computed from its own rates, measured in
// the same run:
//
//   npm run bench:gpu -- [--model 135m,1b,8b] [--steps n] [--pairs n] [--device cuda|cpu] [--json file]
//
// A shape that does not fit is run with as many layers as do, and compared with the ceiling of as many.
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { root } from "../scripts/quickstart/paths.mjs";
import { Random } from "../scripts/quickstart/random.mjs";
import { stepFlops } from "./lib/flops.mjs";
import { cudaDetail } from "./lib/machine.mjs";
import { gpuModels, models } from "./lib/models.mjs";
import { countTokens, makePairs, tokenizedRow } from "./lib/pairs.mjs";
import { median } from "./lib/statistics.mjs";

/** @typedef {import("./lib/models.mjs").BenchModel} BenchModel */

/** Share of the GEMM peak that the step's mix of shapes can reach, and attention, forward and backward. */
const GEMM_SHARE = 0.88;
const ATTENTION_SHARE = 0.45;
/** Share of the free memory that is used. */
const USABLE = 0.9;
/** Tokens of a micro-batch and bytes of logits, as the trainer takes them on a GPU. */
const MAX_TOKENS = 16384;
const LOGITS_BYTES = 1 << 30;

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(`bench:gpu: ${message}`);
  process.exit(2);
}

function readOptions() {
  const text = /** @type {const} */ ({ type: "string" });
  try {
    const { values } = parseArgs({
      options: { model: text, steps: text, pairs: text, device: text, json: text },
    });
    const { model = "135m,1b,8b", steps = "5", pairs = "16", device = "cuda", json } = values;
    const known = { ...models, ...gpuModels };
    const shapes = model.split(",").map((name) => {
      return (
        known[name] ?? fail(`--model: expected ${Object.keys(known).join(", ")}, received ${name}`)
      );
    });
    for (const [name, value] of Object.entries({ steps, pairs })) {
      if (!/^[1-9]\d*$/.test(value)) {
        fail(`--${name}: expected a whole number from 1 on, received ${value}`);
      }
    }
    if (device !== "cuda" && device !== "cpu") {
      return fail(`--device: expected cuda or cpu, received ${device}`);
    }
    return {
      ...{ shapes, steps: Number(steps), pairs: Number(pairs), json },
      device: /** @type {"cuda" | "cpu"} */ (device),
    };
  } catch (error) {
    return fail(/** @type {Error} */ (error).message);
  }
}

/** @param {BenchModel} model @param {number} numLayers */
function shapeOf(model, numLayers) {
  const { hiddenSize, numHeads, numKvHeads, intermediateSize, vocabSize, tied } = model;
  return {
    ...{
      family: "llama",
      hiddenSize,
      numLayers,
      numHeads,
      numKvHeads,
      intermediateSize,
      vocabSize,
    },
    ...{ headDim: hiddenSize / numHeads, rmsNormEps: 1e-5, ropeTheta: 10000, tiedEmbeddings: tied },
    ...{ rope: { kind: "default" }, qkvBias: false, qkNorm: false, slidingWindow: null },
  };
}

/**
 * Bytes that a token's elementwise passes have to move, forward and backward, each fused as far as it goes:
 * two norms with their residual adds (4 + 5 rows of C each), RoPE in place both ways, SwiGLU (3 + 6 rows of F).
 * @param {BenchModel} model @param {number} layers
 */
function elementwiseBytes(model, layers) {
  const { hiddenSize: C, numHeads: H, numKvHeads: K, intermediateSize: F } = model;
  const rope = 2 * 2 * (H + K) * (C / H);
  return 2 * layers * (2 * (4 + 5) * C + rope + (3 + 6) * F);
}

async function main() {
  const options = readOptions();
  if (!existsSync(path.join(root, "dist", "train", "session.js"))) {
    fail("dist/train/session.js not found, expected the compiled package; run: npm run build");
  }
  const { addonInfo, alignedBytes, openDevice, requireDevice } = await import(
    "../dist/native/index.js"
  );
  const { packPairs } = await import("../dist/data/pack.js");
  const { AdamW } = await import("../dist/optim/adamw.js");
  const { createLoss } = await import("../dist/loss/index.js");
  const unused = { beta: 0, gammaBetaRatio: 0, labelSmoothing: 0 };
  const loss = createLoss({ lossType: "SimPER", sftWeight: 0, ...unused });
  const { flatBytes } = await import("../dist/parallel/resident.js");
  const { bufferBytes, passBuffers } = await import("../dist/train/buffers.js");
  const { machineMemory, modelBlocks } = await import("../dist/train/plan-memory.js");
  const { ResidentModel } = await import("../dist/train/resident-model.js");
  const { Session } = await import("../dist/train/session.js");
  const { bandwidth, gemmPeak } = await import("./lib/roof.mjs");
  try {
    requireDevice(options.device);
  } catch (error) {
    fail(/** @type {Error} */ (error).message);
  }

  const device = openDevice(options.device);
  const gpu = options.device === "cuda" ? cudaDetail(addonInfo()) : "the CPU";
  const peak = await gemmPeak(device, "bf16");
  const rate = await bandwidth(device, 2 ** 30);
  console.log(
    `${gpu}\nbf16 GEMM peak ${(peak / 1e12).toFixed(1)} TFLOP/s, memory ${(rate / 1e9).toFixed(0)} GB/s, measured here.\n`,
  );
  console.log(
    "| shape | layers | checkpointing | pairs | tokens | ms per step | tokens/s | pairs/s | TFLOP/s | ceiling tokens/s | % of it |\n" +
      "|---|---|---|---|---|---|---|---|---|---|---|",
  );
  const results = [];
  for (const model of options.shapes) {
    const rows = makePairs({ ...model, ...pairLengths(model) }, options.pairs, 1234);
    const batches = packPairs(
      rows.map((pair) => {
        const row = tokenizedRow(pair);
        const side = (/** @type {number[]} */ ids, /** @type {number[]} */ labels) => ({
          ids: Int32Array.from(ids),
          labels: Int32Array.from(labels),
        });
        return {
          chosen: side(row.chosen_input_ids, row.chosen_labels),
          rejected: side(row.rejected_input_ids, row.rejected_labels),
        };
      }),
      { maxTokens: MAX_TOKENS, prefixSharing: true },
    );
    const most = (/** @type {(batch: (typeof batches)[number]) => number} */ of) =>
      Math.max(...batches.map(of));
    const groupRows = Math.max(32, Math.floor(LOGITS_BYTES / 4 / model.vocabSize / 32) * 32);
    const limits = {
      tokens: Math.ceil(most((b) => b.tokens.length) / 256) * 256,
      scored: most((b) => b.scoredRows.length),
      examples: most((b) => b.examples),
      stepExamples: options.pairs,
      groupRows: Math.min(groupRows, Math.ceil(most((b) => b.scoredRows.length) / 32) * 32),
      positions: model.maxLength,
      pairs: true,
    };
    const free = device.memory()?.free ?? machineMemory();
    const needed = (/** @type {number} */ layers, /** @type {boolean} */ checkpointing) => {
      const shape = shapeOf(model, layers);
      const state = modelBlocks(shape).reduce((sum, block) => {
        const { weight, master, moments, grad } = flatBytes(block, "bf16", true);
        return sum + weight + master + moments + grad;
      }, 0);
      return (
        state + bufferBytes(passBuffers(shape, "bf16", limits, { training: true, checkpointing }))
      );
    };
    // Keeping activations is faster, so checkpointing comes before fewer layers.
    let layers = model.numLayers;
    let checkpointing = needed(layers, false) > USABLE * free;
    while (layers > 1 && needed(layers, checkpointing) > USABLE * free) layers--;
    checkpointing &&= needed(layers, false) > USABLE * free;

    const shape = shapeOf(model, layers);
    const resident = new ResidentModel({
      ...{ device: options.device, shape, blocks: modelBlocks(shape) },
      ...{ dtype: /** @type {const} */ ("bf16"), training: true },
    });
    const session = new Session(resident, { limits, checkpointing });
    const { stream, store, pass, buffers } = session;
    try {
      const scratch = device.arena(alignedBytes("f32", [1 << 20]), "random");
      const small = scratch.tensor("f32", [1 << 20]);
      // Uniform with the standard deviation 0.02 of a fresh model, over and over.
      const random = new Random(7);
      stream.write(
        small,
        Float32Array.from(
          { length: small.rows },
          () => 0.02 * Math.sqrt(12) * (random.next() - 0.5),
        ),
      );
      for (const block of store.blocks) {
        for (let begin = 0; begin < block.weight.rows; begin += small.rows) {
          const end = Math.min(begin + small.rows, block.weight.rows);
          stream.convert(block.master.slice(begin, end), small.slice(0, end - begin));
        }
        stream.convert(block.weight, block.master);
      }
      await stream.done();
      scratch.dispose();
      const adamw = { adamBeta1: 0.9, adamBeta2: 0.999, adamEpsilon: 1e-8, weightDecay: 0 };
      const optimizer = new AdamW(
        ...[store.blocks, { ...adamw, maxGradNorm: 1 }],
        ...[buffers.tensor("clip"), buffers.tensor("normPartials")],
      );
      const seconds = [];
      const warmup = 2;
      for (let step = 1; step <= warmup + options.steps; step++) {
        const began = performance.now();
        for (const block of store.blocks) stream.fill(block.grad, 0);
        let responses = 0;
        for (const batch of batches) {
          await pass.train(batch, { loss, scale: 1 / options.pairs }, responses);
          responses += batch.responses.length / 3;
        }
        optimizer.step(stream, step, 1e-6);
        await stream.done();
        if (step > warmup) seconds.push((performance.now() - began) / 1e3);
      }
      const tokens = countTokens(rows);
      const flops = stepFlops({ ...model, numLayers: layers }, rows);
      const again = checkpointing ? 4 / 3 : 1; // one more forward
      const best =
        (again * flops.linear + flops.head) / (GEMM_SHARE * peak) +
        (again * flops.attention) / (ATTENTION_SHARE * peak) +
        (again * tokens.computed * elementwiseBytes(model, layers)) / rate;
      const step = median(seconds);
      const result = {
        ...{ model: model.name, layers, ofLayers: model.numLayers, checkpointing },
        ...{ pairs: options.pairs, computedTokens: tokens.computed, realTokens: tokens.real },
        ...{ stepSeconds: seconds, tokensPerSecond: tokens.computed / step },
        ...{ pairsPerSecond: options.pairs / step, flopsPerSecond: flops.total / step },
        ...{ ceilingTokensPerSecond: tokens.computed / best, ofCeiling: best / step },
      };
      results.push(result);
      console.log(
        `| ${model.title} | ${layers} of ${model.numLayers} | ${checkpointing ? "yes" : "no"} | ${options.pairs} | ` +
          `${tokens.computed} | ${(1e3 * step).toFixed(1)} | ${result.tokensPerSecond.toFixed(0)} | ` +
          `${result.pairsPerSecond.toFixed(1)} | ${(result.flopsPerSecond / 1e12).toFixed(1)} | ` +
          `${result.ceilingTokensPerSecond.toFixed(0)} | ${(100 * result.ofCeiling).toFixed(0)}% |`,
      );
    } finally {
      session.dispose();
      resident.dispose();
    }
  }
  device.dispose();
  if (options.json !== undefined) {
    const report = { format: 1, gpu, gemmFlops: peak, memoryBytesPerSecond: rate, results };
    writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
  }
}

/** Prompts of 400 and responses of 300 tokens, except of models that are too small for them. @param {BenchModel} model */
function pairLengths(model) {
  return model.maxLength < 2048
    ? {}
    : (({ prompt, response }) => ({ prompt, response }))(gpuModels["8b"] ?? model);
}

await main().catch((/** @type {Error} */ error) => {
  console.error(`bench:gpu: ${error.message}`);
  process.exitCode = 1;
});
