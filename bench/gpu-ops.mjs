// Attention, products and log-probabilities at the sizes of peer/torch_gpu.py, in the same table, so that the two
// can be laid side by side. Started by gpu.sh:
//
//   node bench/gpu-ops.mjs [--device cuda|cpu] [--tokens n]
import { parseArgs } from "node:util";
import { openDevice } from "../dist/native/index.js";
import { fillRandom, timeOp } from "./lib/roof.mjs";
import { median } from "./lib/statistics.mjs";

/** @typedef {import("../dist/native/index.js").Tensor} Tensor */

const { values } = parseArgs({
  options: { device: { type: "string" }, tokens: { type: "string" } },
});
const name = /** @type {"cuda" | "cpu"} */ (values.device ?? "cuda");
const allTokens = Number(values.tokens ?? 16384);
const device = openDevice(name);
const stream = device.stream();

/**
 * @param {string} op @param {string} sizes @param {number} seconds
 * @param {{ flops?: number, bytes?: number }} work
 */
function row(op, sizes, seconds, { flops, bytes }) {
  const rate = flops === undefined ? "" : (flops / seconds / 1e12).toFixed(name === "cuda" ? 0 : 3);
  const width = bytes === undefined ? "" : (bytes / seconds / 1e9).toFixed(0);
  console.log(`| ${op} | ${sizes} | ${(1e6 * seconds).toFixed(0)} | ${rate} | ${width} |`);
}

/** Runs `work` with an arena of so many MB. @param {number} megabytes @param {(arena: import("../dist/native/index.js").Arena) => Promise<void>} work */
async function withArena(megabytes, work) {
  const arena = device.arena(Math.ceil(megabytes * 1e6), "bench");
  try {
    await work(arena);
    await stream.done();
  } finally {
    arena.dispose();
  }
}

const limits = { least: 30, budget: 0 };

/** Causal attention within sequences of one length. @param {number} H @param {number} K @param {number} D @param {number} length */
async function attention(H, K, D, length) {
  const batch = Math.max(1, Math.floor(allTokens / length));
  const T = batch * length;
  const wide = (H + 2 * K) * D;
  await withArena((T * (2 * wide + 2 * H * D) * 2 + 8 * T * H) / 1e6 + 1, async (arena) => {
    const qkv = arena.tensor("bf16", [T, wide]);
    const dQkv = arena.tensor("bf16", [T, wide]);
    const o = arena.tensor("bf16", [T, H * D]);
    const dO = arena.tensor("bf16", [T, H * D]);
    const lse = arena.tensor("f32", [T, H]);
    const delta = arena.tensor("f32", [T, H]);
    const segments = arena.tensor("i32", [batch, 4]);
    fillRandom(stream, qkv);
    fillRandom(stream, dO);
    const rows = Array.from({ length: batch }, (_, b) => [b * length, (b + 1) * length, 0, 0]);
    stream.write(segments, Int32Array.from(rows.flat()));
    const pairs = (batch * H * length * (length + 1)) / 2;
    const sizes = `${batch} x ${length}, H ${H}, K ${K}, D ${D}`;
    const forward = () => stream.attentionForward(o, lse, qkv, segments, H, K, 0);
    row("attention forward", sizes, median(await timeOp(stream, forward, limits)), {
      flops: 4 * D * pairs,
    });
    const backward = () =>
      stream.attentionBackward(dQkv, delta, dO, o, lse, qkv, segments, H, K, 0);
    row("attention backward", sizes, median(await timeOp(stream, backward, limits)), {
      flops: 10 * D * pairs,
    });
  });
}

/** @param {number} m @param {number} n @param {number} k */
async function matmul(m, n, k) {
  await withArena((2 * (m * k + n * k + m * n)) / 1e6 + 1, async (arena) => {
    const c = arena.tensor("bf16", [m, n]);
    const a = arena.tensor("bf16", [m, k]);
    const b = arena.tensor("bf16", [n, k]);
    fillRandom(stream, a);
    fillRandom(stream, b);
    const seconds = median(await timeOp(stream, () => stream.matmul(c, a, b, "nt"), limits));
    row("matmul (nt)", `${m} x ${n} x ${k}`, seconds, { flops: 2 * m * n * k });
  });
}

/** @param {number} N @param {number} V */
async function logProbs(N, V) {
  await withArena((4 * N * (V + 3)) / 1e6 + 1, async (arena) => {
    const logits = arena.tensor("f32", [N, V]);
    const logp = arena.tensor("f32", [N]);
    const lse = arena.tensor("f32", [N]);
    const labels = arena.tensor("i32", [N]);
    const coefficient = arena.tensor("f32", [N]);
    fillRandom(stream, logits);
    fillRandom(stream, coefficient);
    stream.write(
      labels,
      Int32Array.from({ length: N }, (_, n) => (n * 7919) % V),
    );
    const sizes = `${N} x ${V} f32`;
    const forward = () => stream.logprobForward(logp, lse, logits, labels);
    row("logprob_forward", sizes, median(await timeOp(stream, forward, limits)), {
      bytes: 4 * N * V,
    });
    const d = logits.view([N, V], { dtype: "bf16", rowStride: 2 * V });
    const backward = () => stream.logprobBackward(d, logits, lse, labels, coefficient);
    row("logprob_backward, in place", sizes, median(await timeOp(stream, backward, limits)), {
      bytes: 6 * N * V,
    });
  });
}

console.log("| op | sizes | µs, median | TFLOP/s | GB/s |\n|---|---|---|---|---|");
for (const [H, K, D] of /** @type {const} */ ([
  [32, 8, 128],
  [32, 8, 64],
  [9, 3, 64],
])) {
  for (const length of [512, 1024, 2048, 4096]) {
    if (length <= allTokens) await attention(H, K, D, length);
  }
}
const T = Math.min(8192, allTokens);
const products = [
  ...[
    [T, T, T],
    [T, 1728, 576],
    [T, 3072, 576],
    [T, 576, 1536],
  ],
  ...[
    [T, 16384, 2048],
    [T, 2048, 8192],
    [T, 28672, 4096],
    [T, 4096, 14336],
  ],
];
if (name === "cuda") for (const [m = 1, n = 1, k = 1] of products) await matmul(m, n, k);
for (const V of [49152, 128256]) await logProbs(name === "cuda" ? 1024 : 8, V);
stream.dispose();
device.dispose();
