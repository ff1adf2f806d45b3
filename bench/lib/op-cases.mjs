/**
 * One call of every op at the sizes it has in a training step, with the bytes it has to move and the
 * operations it has to do: each operand read or written once, a multiply-add counted as two. Exponentials,
 * norms and the like count as no operations: those ops are bound by memory.
 */
import { packPairs } from "../../dist/data/pack.js";
import { visibleKeys } from "./flops.mjs";
import { tokenizedRow } from "./pairs.mjs";

/** @typedef {import("../../dist/native/index.js").Stream} Stream */
/** @typedef {import("../../dist/native/index.js").Tensor} Tensor */
/** @typedef {"f32" | "bf16"} DType */
/** @typedef {{ dtype: DType, shape: number[], fill: "random" | "zero" }} FloatSpec */
/** @typedef {FloatSpec | Int32Array} TensorSpec an array of indices is i32, one row of `columns` each */
/** @typedef {Readonly<Record<string, Tensor>>} Tensors */

/**
 * @typedef {object} OpBench
 * @property {string} op
 * @property {string} sizes
 * @property {Record<string, TensorSpec | { ints: Int32Array, columns: number }>} tensors
 * @property {(s: Stream, x: any) => void} run
 * @property {(s: Stream, x: any) => void} [prepare] fills what an earlier op would have left
 * @property {number} bytes
 * @property {number} [flops]
 */

const ELEMENT = { f32: 4, bf16: 2 };

/** Keys that a row sees in the cases with a window. */
const WINDOW = 128;

/** Rows of logits that the trainer computes at once, at most. */
const LOGITS_BYTES = 256 << 20;

/**
 * @param {import("./models.mjs").BenchModel} model
 * @param {readonly import("./pairs.mjs").Pair[]} pairs packed into one micro-batch
 * @returns {OpBench[]}
 */
export function opBenches(model, pairs) {
  const { hiddenSize: C, numHeads: H, numKvHeads: K, intermediateSize: F, vocabSize: V } = model;
  const x = model.dtype;
  const e = ELEMENT[x];
  const D = C / H;
  const wide = (H + 2 * K) * D;
  const batch = pack(pairs);
  const T = batch.tokens.length;
  const N = Math.max(
    32,
    Math.min(Math.floor(LOGITS_BYTES / 4 / V / 32) * 32, batch.scoredRows.length),
  );
  const keys = pairs.reduce((sum, pair) => sum + visibleKeys(pair), 0);
  const windowed = pairs.reduce((sum, pair) => sum + visibleKeys(pair, WINDOW), 0);
  const block = wide * C + C * C + 3 * F * C + 2 * C;

  const random = (/** @type {DType} */ dtype, /** @type {number[]} */ ...shape) =>
    /** @type {FloatSpec} */ ({ dtype, shape, fill: "random" });
  const zero = (/** @type {DType} */ dtype, /** @type {number[]} */ ...shape) =>
    /** @type {FloatSpec} */ ({ dtype, shape, fill: "zero" });
  const rows = (/** @type {number} */ columns) => random(x, T, columns);
  const norm = { weight: random(x, C), rstd: random("f32", T), dWeight: zero("f32", C) };
  const segments = { ints: batch.segments, columns: 4 };
  const ropeTable = random("f32", model.maxLength, D);
  const attention = {
    ...{ qkv: rows(wide), o: zero(x, T, C), lse: zero("f32", T, H), segments },
  };
  const qkNorm = {
    ...{ qWeight: random(x, D), kWeight: random(x, D), rstd: random("f32", T, H + K) },
    ...{ dQWeight: zero("f32", D), dKWeight: zero("f32", D) },
  };
  const head = { logits: random("f32", N, V), logp: zero("f32", N), lse: zero("f32", N) };
  const labels = batch.scoredLabels.slice(0, N);
  const scoredRows = batch.scoredRows.slice(0, N);
  const cache = cachedSequences(8, 512);

  /** @type {OpBench[]} */
  const others = [
    {
      ...{ op: "embedding_forward", sizes: `T ${T}, C ${C}`, bytes: 2 * T * C * e },
      tensors: { y: rows(C), tokens: batch.tokens, weight: random(x, V, C) },
      run: (s, t) => s.embeddingForward(t.y, t.tokens, t.weight),
    },
    {
      op: "embedding_backward",
      sizes: `T ${T}, C ${C}, ${batch.uniqueTokens.length} ids`,
      bytes: T * C * e + 8 * batch.uniqueTokens.length * C,
      tensors: {
        ...{ dWeight: zero("f32", V, C), dy: rows(C), unique: batch.uniqueTokens },
        ...{ offsets: batch.tokenOffsets, rows: batch.tokenRows },
      },
      run: (s, t) => s.embeddingBackward(t.dWeight, t.dy, t.unique, t.offsets, t.rows),
    },
    {
      ...{ op: "rmsnorm_forward", sizes: `T ${T}, C ${C}`, bytes: 2 * T * C * e },
      tensors: { ...norm, y: rows(C), x: rows(C) },
      run: (s, t) => s.rmsnormForward(t.y, t.rstd, t.x, t.weight, 1e-5),
    },
    {
      ...{ op: "add_rmsnorm_forward", sizes: `T ${T}, C ${C}`, bytes: 4 * T * C * e },
      tensors: { ...norm, y: rows(C), sum: rows(C), x: rows(C), branch: rows(C) },
      run: (s, t) => s.addRmsnormForward(t.y, t.sum, t.rstd, t.x, t.branch, t.weight, 1e-5),
    },
    {
      ...{ op: "rmsnorm_backward", sizes: `T ${T}, C ${C}`, bytes: 3 * T * C * e },
      tensors: { ...norm, dx: rows(C), dy: rows(C), x: rows(C) },
      run: (s, t) => s.rmsnormBackward(t.dx, t.dWeight, t.dy, t.x, t.weight, t.rstd),
    },
    {
      ...{ op: "rmsnorm_backward_add", sizes: `T ${T}, C ${C}`, bytes: 5 * T * C * e },
      tensors: { ...norm, dx: zero(x, T, C), y: rows(C), dy: rows(C), x: rows(C) },
      run: (s, t) => s.rmsnormBackwardAdd(t.dx, t.y, t.dWeight, t.dy, t.x, t.weight, t.rstd),
    },
    {
      ...{ op: "add_bias", sizes: `T ${T}, N ${wide}`, bytes: 2 * T * wide * e },
      tensors: { x: rows(wide), bias: random(x, wide) },
      run: (s, t) => s.addBias(t.x, t.bias),
    },
    {
      ...{ op: "bias_backward", sizes: `T ${T}, N ${wide}`, bytes: T * wide * e },
      tensors: { dBias: zero("f32", wide), dy: rows(wide) },
      run: (s, t) => s.biasBackward(t.dBias, t.dy),
    },
    {
      ...{ op: "qk_norm_forward", sizes: `T ${T}, H ${H}, K ${K}, D ${D}` },
      bytes: 2 * T * wide * e,
      tensors: { ...qkNorm, y: rows(wide), x: rows(wide) },
      run: (s, t) => s.qkNormForward(t.y, t.rstd, t.x, t.qWeight, t.kWeight, H, K, 1e-6),
    },
    {
      ...{ op: "qk_norm_backward", sizes: `T ${T}, H ${H}, K ${K}, D ${D}` },
      bytes: 3 * T * wide * e,
      tensors: { ...qkNorm, dx: rows(wide), dy: rows(wide), x: rows(wide) },
      run: (s, t) => {
        const { dx, dQWeight, dKWeight, dy, qWeight, kWeight, rstd } = t;
        s.qkNormBackward(dx, dQWeight, dKWeight, dy, t.x, qWeight, kWeight, rstd, H, K);
      },
    },
    .../** @type {const} */ (["forward", "backward"]).map(
      (way) =>
        /** @type {OpBench} */ ({
          ...{ op: `rope_${way}`, sizes: `T ${T}, ${H + K} heads`, bytes: 2 * T * (H + K) * D * e },
          tensors: { x: rows(wide), positions: batch.positions, ropeTable },
          run: (s, t) =>
            way === "forward"
              ? s.ropeForward(t.x, t.positions, t.ropeTable, H + K)
              : s.ropeBackward(t.x, t.positions, t.ropeTable, H + K),
        }),
    ),
    ...[0, WINDOW].flatMap((window) => {
      const name = window > 0 ? `, window ${window}` : "";
      const sizes = `T ${T}, H ${H}, K ${K}, D ${D}, ${pairs.length} pairs${name}`;
      const visible = window > 0 ? windowed : keys;
      const forward = (/** @type {Stream} */ s, /** @type {any} */ t) =>
        s.attentionForward(t.o, t.lse, t.qkv, t.segments, H, K, window);
      return /** @type {OpBench[]} */ ([
        {
          ...{ op: "attention_forward", sizes, bytes: T * (wide + C) * e },
          flops: 4 * D * H * visible,
          tensors: attention,
          run: forward,
        },
        {
          ...{ op: "attention_backward", sizes, bytes: T * (2 * wide + 2 * C) * e },
          flops: 10 * D * H * visible,
          tensors: { ...attention, dQkv: zero(x, T, wide), delta: zero("f32", T, H), dO: rows(C) },
          prepare: forward,
          run: (s, t) =>
            s.attentionBackward(t.dQkv, t.delta, t.dO, t.o, t.lse, t.qkv, t.segments, H, K, window),
        },
      ]);
    }),
    {
      ...{ op: "swiglu_forward", sizes: `T ${T}, F ${F}`, bytes: 3 * T * F * e },
      tensors: { hidden: rows(F), gateUp: rows(2 * F) },
      run: (s, t) => s.swigluForward(t.hidden, t.gateUp),
    },
    {
      ...{ op: "swiglu_backward", sizes: `T ${T}, F ${F}`, bytes: 6 * T * F * e },
      tensors: { dGateUp: rows(2 * F), hidden: rows(F), dHidden: rows(F), gateUp: rows(2 * F) },
      run: (s, t) => s.swigluBackward(t.dGateUp, t.hidden, t.dHidden, t.gateUp),
    },
    {
      ...{ op: "gather_rows", sizes: `N ${N}, C ${C}`, bytes: 2 * N * C * e },
      tensors: { y: zero(x, N, C), x: rows(C), rows: scoredRows },
      run: (s, t) => s.gatherRows(t.y, t.x, t.rows),
    },
    {
      ...{ op: "scatter_rows", sizes: `N ${N}, T ${T}, C ${C}`, bytes: (N + T) * C * e },
      tensors: {
        ...{ dx: rows(C), dy: random(x, N, C) },
        sources: { ints: batch.rowSources.map((n) => (n < N ? n : -1)), columns: 2 },
      },
      run: (s, t) => s.scatterRows(t.dx, t.dy, t.sources),
    },
    {
      ...{ op: "logprob_forward", sizes: `N ${N}, V ${V}`, bytes: 4 * N * V },
      tensors: { ...head, labels },
      run: (s, t) => s.logprobForward(t.logp, t.lse, t.logits, t.labels),
    },
    {
      ...{ op: "logprob_backward", sizes: `N ${N}, V ${V}`, bytes: (4 + e) * N * V },
      tensors: { ...head, labels, dLogits: zero(x, N, V), coefficient: random("f32", N) },
      prepare: (s, t) => s.logprobForward(t.logp, t.lse, t.logits, t.labels),
      run: (s, t) => s.logprobBackward(t.dLogits, t.logits, t.lse, t.labels, t.coefficient),
    },
    {
      ...{ op: "fill", sizes: `${block} f32`, bytes: 4 * block },
      tensors: { x: zero("f32", block) },
      run: (s, t) => s.fill(t.x, 0),
    },
    {
      ...{ op: "convert", sizes: `${block}, f32 to bf16`, bytes: 6 * block },
      tensors: { y: zero("bf16", block), x: random("f32", block) },
      run: (s, t) => s.convert(t.y, t.x),
    },
    {
      ...{ op: "sum_squares", sizes: `${block} f32`, bytes: 4 * block },
      tensors: { partials: zero("f32", 64), x: random("f32", block) },
      run: (s, t) => s.sumSquares(t.partials, t.x),
    },
    ...[block, V * C].map((n) => adamwBench(n, x)),
    {
      op: "kv_cache_write",
      sizes: `T ${T}, K ${K}, D ${D}`,
      bytes: 4 * T * K * D * e,
      tensors: {
        ...{ kCache: rows(K * D), vCache: rows(K * D), qkv: rows(wide) },
        slots: Int32Array.from({ length: T }, (_, t) => t),
      },
      run: (s, t) => s.kvCacheWrite(t.kCache, t.vCache, t.qkv, t.slots, H),
    },
    {
      op: "attention_decode",
      sizes: `${cache.sequences} sequences of ${cache.length} keys`,
      bytes: 2 * cache.rows * K * D * e,
      flops: 4 * D * H * cache.rows,
      tensors: {
        ...{ o: zero(x, cache.sequences, C), qkv: random(x, cache.sequences, wide) },
        ...{ kCache: random(x, cache.rows, K * D), vCache: random(x, cache.rows, K * D) },
        ranges: { ints: cache.ranges, columns: 2 },
      },
      run: (s, t) => s.attentionDecode(t.o, t.qkv, t.kCache, t.vCache, t.ranges, H),
    },
  ];
  return [
    ...linear("qkv", T, wide, C, x),
    ...linear("o", T, C, C, x),
    ...linear("gate, up", T, 2 * F, C, x),
    ...linear("down", T, C, F, x),
    ...linear("head", N, V, C, x, "f32"),
    ...others,
  ];
}

/**
 * The three products of y (rows, outputs) = x (rows, inputs) · wᵀ: y, dx, dw +=.
 * @param {string} name @param {number} rows @param {number} outputs @param {number} inputs
 * @param {DType} x @param {DType} [y] type of y
 * @returns {OpBench[]}
 */
function linear(name, rows, outputs, inputs, x, y = x) {
  const e = ELEMENT[x];
  const flops = 2 * rows * outputs * inputs;
  const spec = (/** @type {DType} */ dtype, /** @type {number[]} */ ...shape) =>
    /** @type {FloatSpec} */ ({ dtype, shape, fill: "random" });
  const sizes = (/** @type {string} */ what) =>
    `${name}: ${what}, ${rows} × ${outputs} × ${inputs}`;
  return [
    {
      ...{ op: "matmul", sizes: sizes("y"), flops },
      bytes: (rows + outputs) * inputs * e + rows * outputs * ELEMENT[y],
      tensors: { c: spec(y, rows, outputs), a: spec(x, rows, inputs), b: spec(x, outputs, inputs) },
      run: (s, t) => s.matmul(t.c, t.a, t.b, "nt"),
    },
    {
      ...{ op: "matmul", sizes: sizes("dx"), flops },
      bytes: (rows * outputs + outputs * inputs + rows * inputs) * e,
      tensors: { c: spec(x, rows, inputs), a: spec(x, rows, outputs), b: spec(x, outputs, inputs) },
      run: (s, t) => s.matmul(t.c, t.a, t.b, "nn"),
    },
    {
      ...{ op: "matmul_add", sizes: sizes("dw"), flops },
      bytes: rows * (outputs + inputs) * e + 8 * outputs * inputs,
      tensors: {
        ...{ c: spec("f32", outputs, inputs), a: spec(x, rows, outputs), b: spec(x, rows, inputs) },
      },
      run: (s, t) => s.matmulAdd(t.c, t.a, t.b, "tn"),
    },
  ];
}

/**
 * Master, moments read and written, gradient read; bf16 weights written besides.
 * @param {number} n @param {DType} x @returns {OpBench}
 */
function adamwBench(n, x) {
  const f32 = () => /** @type {FloatSpec} */ ({ dtype: "f32", shape: [n], fill: "zero" });
  const grad = /** @type {FloatSpec} */ ({ dtype: "f32", shape: [n], fill: "random" });
  const weight = /** @type {FloatSpec} */ ({ dtype: x, shape: [n], fill: "zero" });
  const clip = /** @type {FloatSpec} */ ({ dtype: "f32", shape: [2], fill: "random" });
  const own = x === "f32"; // the weights are the master
  return {
    ...{ op: "adamw", sizes: `${n} ${x}`, bytes: n * (own ? 28 : 30) },
    tensors: { weight, ...(own ? {} : { master: f32() }), m: f32(), v: f32(), grad, clip },
    run: (s, t) => {
      const { weight: w, master = w, m, v, grad: g, clip: c } = t;
      s.adamw(w, master, m, v, g, c, 1e-6, 0.9, 0.999, 1e-8, 0, 10);
    },
  };
}

/** @param {readonly import("./pairs.mjs").Pair[]} pairs */
function pack(pairs) {
  const tokenized = pairs.map((pair) => {
    const row = tokenizedRow(pair);
    const ids = (/** @type {number[]} */ list) => Int32Array.from(list);
    return {
      chosen: { ids: ids(row.chosen_input_ids), labels: ids(row.chosen_labels) },
      rejected: { ids: ids(row.rejected_input_ids), labels: ids(row.rejected_labels) },
    };
  });
  const [batch] = packPairs(tokenized, { maxTokens: 2 ** 30, prefixSharing: true });
  if (!batch) throw new Error("no pairs to pack");
  return batch;
}

/** @param {number} sequences @param {number} length */
function cachedSequences(sequences, length) {
  const ranges = Int32Array.from({ length: 2 * sequences }, (_, i) =>
    i % 2 ? length : (i / 2) * length,
  );
  return { sequences, length, rows: sequences * length, ranges };
}
