import type { Ops } from "#src/native/index.js";
import { bf16, type CallArguments, f16, f32, i32, over, strided, table } from "./harness/calls.js";

/** A call that is fine, and changes to it that each break one rule. */
export interface Contract {
  readonly op: keyof Ops;
  readonly valid: CallArguments;
  /** Replaced arguments → the message, without `op: `. */
  readonly broken: readonly (readonly [CallArguments, string])[];
  /** Values of index tables that only the device can check → what the await says. */
  readonly badIndices?: readonly (readonly [CallArguments, RegExp])[];
}

// T = 3 rows, C = 4 columns, V = 8 tokens; H = 2, K = 1, D = 4: rows of qkv have (2 + 2)·4 = 16 columns.
const norm = {
  dx: f32(3, 4),
  dWeight: f32(4),
  dy: f32(3, 4),
  x: f32(3, 4),
  weight: f32(4),
  rstd: f32(3),
};

const normBroken: Contract["broken"] = [
  [{ x: f32(12) }, "x has shape (12), expected a matrix"],
  [{ dx: f32(2, 4) }, "dx has shape (2, 4), expected (3, 4) = shape of x"],
  [{ dWeight: f32(5) }, "d_weight has shape (5), expected (4) = columns of x"],
  [{ dWeight: bf16(4) }, "d_weight has dtype bf16, expected f32"],
  [{ dy: bf16(3, 4) }, "dy has dtype bf16, expected f32 = dtype of x"],
  [{ weight: f32(3) }, "weight has shape (3), expected (4) = columns of x"],
  [{ rstd: f32(4) }, "rstd has shape (4), expected (3) = rows of x"],
  [{ dx: over("x", f32(3, 4)) }, "dx overlaps x, expected memory of its own"],
];
const normAdd = {
  dx: f32(3, 4),
  y: f32(3, 4),
  dWeight: f32(4),
  dy: f32(3, 4),
  x: f32(3, 4),
  weight: f32(4),
  rstd: f32(3),
};

const qkNorm = { qWeight: f32(4), kWeight: f32(4), heads: 2, kvHeads: 1 };

const qkNormBroken: Contract["broken"] = [
  [{ x: f32(48) }, "x has shape (48), expected a matrix"],
  [{ heads: 3, kvHeads: 2 }, "heads is 3, expected a multiple of kv_heads = 2"],
  [{ kvHeads: 0 }, "kv_heads is 0, expected at least 1"],
  [
    { x: f32(3, 18) },
    "x has 18 columns, expected a multiple of heads + 2 kv_heads = 4 with an even head dim",
  ],
  [{ qWeight: f32(3) }, "q_weight has shape (3), expected (4) = head dim of x"],
  [{ kWeight: bf16(4) }, "k_weight has dtype bf16, expected f32 = dtype of x"],
  [{ rstd: f32(3, 4) }, "rstd has shape (3, 4), expected (3, 3) = rows of x, heads + kv_heads"],
];

const response = {
  mean: f32(2),
  loss: f32(2),
  coefficient: f32(5),
  logp: f32(5),
  responses: table([2, 3], 0, 2, 0, 2, 5, 1),
  scale: 0.5,
};

const responseBroken: Contract["broken"] = [
  [
    { responses: i32(2, 2) },
    "responses has shape (2, 2), expected (2, 3) = {begin, end, side} of each response",
  ],
  [{ mean: f32(3) }, "mean has shape (3), expected (2) = rows of responses"],
  [{ loss: f32(1) }, "loss has shape (1), expected (2) = rows of responses"],
  [{ coefficient: f32(4) }, "coefficient has shape (4), expected (5) = size of logp"],
  [{ logp: f32(5, 1) }, "logp has shape (5, 1), expected a vector"],
  [{ mean: over("logp", f32(2)) }, "mean overlaps logp, expected memory of its own"],
  [
    { coefficient: over("logp", f32(5), 1) },
    "coefficient overlaps part of logp, expected memory of its own or exactly that of logp",
  ],
];

const responseIndices: Contract["badIndices"] = [
  [
    { responses: table([2, 3], 0, 2, 0, 2, 6, 1) },
    /responses\[1\] is \{2, 6, 1\}, expected \{begin, end, side\} with 0 <= begin <= end <= 5/,
  ],
  [{ responses: table([2, 3], -1, 2, 0, 2, 5, 1) }, /responses\[0\] is \{-1, 2, 0\}/],
  [{ responses: table([2, 3], 2, 1, 0, 2, 5, 1) }, /responses\[0\] is \{2, 1, 0\}/],
  [{ responses: table([2, 3], 0, 2, 2, 2, 5, 1) }, /responses\[0\] is \{0, 2, 2\}.*side 0 or 1/],
];

const pairResponse = {
  mean: f32(2),
  loss: f32(2),
  coefficient: f32(5),
  logp: f32(5),
  responses: table([2, 3], 0, 2, 0, 2, 5, 1),
  tokenWeight: f32(2),
  scale: 0.5,
};

const pairBroken: Contract["broken"] = [
  ...responseBroken,
  [
    { mean: f32(3), loss: f32(3), responses: i32(3, 3) },
    "responses has 3 rows, expected an even number: two for each pair",
  ],
  [{ tokenWeight: f32(1) }, "token_weight has shape (1), expected (2) = rows of responses"],
  [{ tokenWeight: i32(2) }, "token_weight has dtype i32, expected f32"],
  [{ tokenWeight: over("mean", f32(2)) }, "mean overlaps token_weight, expected memory of its own"],
  [{ tokenWeight: over("loss", f32(2)) }, "loss overlaps token_weight, expected memory of its own"],
  [
    { tokenWeight: over("coefficient", f32(2)) },
    "coefficient overlaps token_weight, expected memory of its own",
  ],
];

const marginBroken: Contract["broken"] = [
  ...pairBroken,
  [{ beta: Number.NaN }, "beta is nan, expected a finite number"],
  [
    { gammaBetaRatio: Number.NEGATIVE_INFINITY },
    "gamma_beta_ratio is -inf, expected a finite number",
  ],
];

const pairIndices: Contract["badIndices"] = [
  ...responseIndices,
  [
    { responses: table([2, 3], 0, 2, 1, 2, 5, 0) },
    /responses\[0\] is \{0, 2, 1\}, expected side 0 \(chosen\) in even rows and side 1 \(rejected\) in odd ones/,
  ],
  [
    { responses: table([2, 3], 0, 2, 0, 2, 5, 0) },
    /responses\[1\] is \{2, 5, 0\}, expected side 0 \(chosen\) in even rows and side 1 \(rejected\) in odd ones/,
  ],
];

const rope = { positions: i32(3), table: f32(6, 4), heads: 2 };

const ropeBroken = (x: string): Contract["broken"] => [
  [{ [x]: f32(3, 7) }, `${x} has 7 columns, expected at least heads x head dim = 2 x 4`],
  [{ positions: i32(4) }, `positions has shape (4), expected (3) = rows of ${x}`],
  [{ table: f32(6, 3) }, "table has 3 columns, expected the head dim, an even number"],
  [{ heads: 0 }, "heads is 0, expected at least 1"],
];

const ropeIndices: Contract["badIndices"] = [
  [{ positions: table([3], 0, 6, 0) }, /positions\[1\] is 6, expected 0 <= positions < 6/],
  [{ positions: table([3], 0, 0, -1) }, /positions\[2\] is -1, expected 0 <= positions < 6/],
];

const attention = {
  qkv: f32(3, 16),
  segments: table([1, 4], 0, 3, 0, 0),
  heads: 2,
  kvHeads: 1,
  window: 0,
};

const attentionBroken: Contract["broken"] = [
  [{ heads: 3, kvHeads: 2 }, "heads is 3, expected a multiple of kv_heads = 2"],
  [{ kvHeads: 0 }, "kv_heads is 0, expected at least 1"],
  [
    { qkv: f32(3, 18) },
    "qkv has 18 columns, expected a multiple of heads + 2 kv_heads = 4 with an even head dim",
  ],
  [{ lse: f32(3, 1) }, "lse has shape (3, 1), expected (3, 2) = rows of qkv, heads"],
  [{ window: -1 }, "window is -1, expected 0 (every key) or more"],
  [
    { segments: i32(1, 3) },
    "segments has shape (1, 3), expected (1, 4) = {start, end, prefix_start, prefix_end} of each segment",
  ],
];

// A segment that leaves the batch, ends before it starts, or whose prefix does.
const attentionIndices: Contract["badIndices"] = [
  [0, 4, 0, 0],
  [-1, 3, 0, 0],
  [2, 1, 0, 0],
  [1, 3, 0, 4],
  [1, 3, -1, 1],
  [1, 3, 1, 0],
].map((row) => [{ segments: table([1, 4], ...row) }, /segments\[0\]/] as const);

const cache = { qkv: f32(3, 16), kCache: f32(5, 4), vCache: f32(5, 4), heads: 2 };

const cacheBroken: Contract["broken"] = [
  [{ vCache: f32(4, 4) }, "v_cache has shape (4, 4), expected (5, 4) = shape of k_cache"],
  [{ kCache: bf16(5, 4) }, "k_cache has dtype bf16, expected f32 = dtype of qkv"],
  [{ heads: 0 }, "heads is 0, expected at least 1"],
  [
    { heads: 3 },
    "qkv has 16 columns, expected heads x head dim + 2 x columns of k_cache = 3 x head dim + 2 x 4 with an even head dim",
  ],
];

export const contracts: readonly Contract[] = [
  {
    op: "fill",
    valid: { x: f32(3, 4), value: 1 },
    broken: [
      [{ x: f16(3) }, "x has dtype f16, expected f32 or bf16"],
      [{ x: strided(f32(3), 2) }, "x has row stride 2, expected 1 = dense"],
    ],
  },
  {
    op: "convert",
    valid: { y: bf16(3, 4), x: f32(3, 4) },
    broken: [
      [{ y: bf16(3, 5) }, "y has shape (3, 5), expected (3, 4) = shape of x"],
      [{ y: bf16(12) }, "y has shape (12), expected (3, 4) = shape of x"],
      [{ y: i32(3, 4) }, "y has dtype i32, expected f32 or bf16 or f16"],
      [
        { y: over("x", bf16(3, 4)) },
        "y overlaps part of x, expected memory of its own or exactly that of x",
      ],
    ],
  },
  {
    op: "matmul",
    valid: { c: f32(2, 3), a: f32(2, 4), b: f32(4, 3), form: "nn" },
    broken: [
      [{ b: f32(5, 3) }, "b has 5 rows, expected 4 = columns of a"],
      [{ form: "nt" }, "b has 3 columns, expected 4 = columns of a"],
      [{ form: "tn" }, "b has 4 rows, expected 2 = rows of a"],
      [{ c: f32(3, 3) }, "c has shape (3, 3), expected (2, 3) = rows of a, columns of b"],
      [{ a: bf16(2, 4) }, "a has dtype bf16, expected f32 = dtype of b"],
      [{ c: bf16(2, 3) }, "c has dtype bf16, expected f32"],
      [{ a: f32(8) }, "a has shape (8), expected a matrix"],
      [{ c: over("a", f32(2, 3)) }, "c overlaps a, expected memory of its own"],
      [{ c: over("b", f32(2, 3), 1) }, "c overlaps b, expected memory of its own"],
    ],
  },
  {
    op: "matmulAdd",
    valid: { c: f32(4, 3), a: bf16(2, 4), b: bf16(2, 3), form: "tn" },
    broken: [
      [{ c: bf16(4, 3) }, "c has dtype bf16, expected f32"],
      [{ c: f32(2, 3) }, "c has shape (2, 3), expected (4, 3) = columns of a, columns of b"],
      [{ b: bf16(3, 3) }, "b has 3 rows, expected 2 = rows of a"],
    ],
  },
  {
    op: "addBias",
    valid: { x: f32(3, 4), bias: f32(4) },
    broken: [
      [{ x: f32(12) }, "x has shape (12), expected a matrix"],
      [{ bias: f32(3) }, "bias has shape (3), expected (4) = columns of x"],
      [{ bias: bf16(4) }, "bias has dtype bf16, expected f32 = dtype of x"],
      [{ bias: over("x", f32(4)) }, "x overlaps bias, expected memory of its own"],
    ],
  },
  {
    op: "biasBackward",
    valid: { dBias: f32(4), dy: bf16(3, 4) },
    broken: [
      [{ dy: f32(12) }, "dy has shape (12), expected a matrix"],
      [{ dBias: f32(3) }, "d_bias has shape (3), expected (4) = columns of dy"],
      [{ dBias: bf16(4) }, "d_bias has dtype bf16, expected f32"],
      [
        { dy: f32(3, 4), dBias: over("dy", f32(4)) },
        "d_bias overlaps dy, expected memory of its own",
      ],
    ],
  },
  {
    op: "embeddingForward",
    valid: { y: f32(3, 4), tokens: i32(3), weight: f32(8, 4) },
    broken: [
      [{ y: f32(3, 5) }, "y has shape (3, 5), expected (3, 4) = size of tokens, columns of weight"],
      [{ y: bf16(3, 4) }, "y has dtype bf16, expected f32 = dtype of weight"],
      [{ tokens: i32(3, 1) }, "tokens has shape (3, 1), expected a vector"],
      [{ y: over("weight", f32(3, 4)) }, "y overlaps weight, expected memory of its own"],
    ],
    badIndices: [
      [{ tokens: table([3], 0, 8, 0) }, /tokens\[1\] is 8, expected 0 <= tokens < 8/],
      [{ tokens: table([3], -1, 0, 0) }, /tokens\[0\] is -1, expected 0 <= tokens < 8/],
    ],
  },
  {
    op: "embeddingBackward",
    valid: {
      dWeight: f32(8, 4),
      dy: f32(3, 4),
      unique: table([2], 1, 5),
      offsets: table([3], 0, 1, 3),
      rows: table([3], 0, 1, 2),
    },
    broken: [
      [
        { dWeight: f32(8, 5) },
        "d_weight has shape (8, 5), expected (8, 4) = vocabulary, columns of dy",
      ],
      [{ dWeight: bf16(8, 4) }, "d_weight has dtype bf16, expected f32"],
      [{ offsets: i32(2) }, "offsets has shape (2), expected (3) = size of unique + 1"],
      [{ rows: i32(4) }, "rows has shape (4), expected at most 3 = rows of dy"],
      [{ dWeight: over("dy", f32(3, 4)) }, "d_weight overlaps dy, expected memory of its own"],
    ],
    badIndices: [
      [{ unique: table([2], 1, 8) }, /unique\[1\] is 8, expected 0 <= unique < 8/],
      [{ unique: table([2], 5, 5) }, /unique\[1\] is 5 again, expected each token once/],
      [{ rows: table([3], 0, 1, 3) }, /rows\[2\] is 3, expected 0 <= rows < 3/],
      [{ rows: table([3], 0, -1, 2) }, /rows\[1\] is -1, expected 0 <= rows < 3/],
      [{ offsets: table([3], 0, 2, 1) }, /offsets\[2\] is 1, expected 2 <= offsets <= 3/],
      [{ offsets: table([3], 0, 1, 4) }, /offsets\[2\] is 4, expected 1 <= offsets <= 3/],
    ],
  },
  {
    op: "rmsnormForward",
    valid: { y: f32(3, 4), rstd: f32(3), x: f32(3, 4), weight: f32(4), eps: 1e-5 },
    broken: [
      [{ rstd: f32(4) }, "rstd has shape (4), expected (3) = rows of x"],
      [{ rstd: bf16(3) }, "rstd has dtype bf16, expected f32"],
      [{ weight: f32(3) }, "weight has shape (3), expected (4) = columns of x"],
      [{ weight: bf16(4) }, "weight has dtype bf16, expected f32 = dtype of x"],
      [{ y: f32(4, 4) }, "y has shape (4, 4), expected (3, 4) = shape of x"],
      [
        { y: over("x", f32(3, 4), 1) },
        "y overlaps part of x, expected memory of its own or exactly that of x",
      ],
    ],
  },
  {
    op: "addRmsnormForward",
    valid: {
      y: f32(3, 4),
      sum: f32(3, 4),
      rstd: f32(3),
      x: f32(3, 4),
      branch: f32(3, 4),
      weight: f32(4),
      eps: 1e-5,
    },
    broken: [
      [{ branch: f32(3, 5) }, "branch has shape (3, 5), expected (3, 4) = shape of x"],
      [{ sum: bf16(3, 4) }, "sum has dtype bf16, expected f32 = dtype of x"],
      [{ y: over("sum", f32(3, 4)) }, "y overlaps sum, expected memory of its own"],
      [
        { sum: over("x", f32(3, 4), 1) },
        "sum overlaps part of x, expected memory of its own or exactly that of x",
      ],
    ],
  },
  {
    op: "rmsnormBackward",
    valid: norm,
    broken: [
      ...normBroken,
      [
        { dx: over("dy", f32(3, 4), 1) },
        "dx overlaps part of dy, expected memory of its own or exactly that of dy",
      ],
    ],
  },
  {
    op: "rmsnormBackwardAdd",
    valid: normAdd,
    broken: [
      ...normBroken,
      [{ y: f32(3, 5) }, "y has shape (3, 5), expected (3, 4) = shape of x"],
      [{ y: over("x", f32(3, 4)) }, "y overlaps x, expected memory of its own"],
      [{ dx: over("dy", f32(3, 4)) }, "dx overlaps dy, expected memory of its own"],
      [
        { y: over("dy", f32(3, 4), 1) },
        "y overlaps part of dy, expected memory of its own or exactly that of dy",
      ],
    ],
  },
  {
    op: "qkNormForward",
    valid: { y: f32(3, 16), rstd: f32(3, 3), x: f32(3, 16), ...qkNorm, eps: 1e-6 },
    broken: [
      ...qkNormBroken,
      [{ y: f32(2, 16) }, "y has shape (2, 16), expected (3, 16) = shape of x"],
      [
        { y: over("x", f32(3, 16), 1) },
        "y overlaps part of x, expected memory of its own or exactly that of x",
      ],
    ],
  },
  {
    op: "qkNormBackward",
    valid: {
      dx: f32(3, 16),
      dQWeight: f32(4),
      dKWeight: f32(4),
      dy: f32(3, 16),
      x: f32(3, 16),
      qWeight: f32(4),
      kWeight: f32(4),
      rstd: f32(3, 3),
      heads: 2,
      kvHeads: 1,
    },
    broken: [
      ...qkNormBroken,
      [{ dx: f32(3, 12) }, "dx has shape (3, 12), expected (3, 16) = shape of x"],
      [{ dy: bf16(3, 16) }, "dy has dtype bf16, expected f32 = dtype of x"],
      [{ dQWeight: f32(8) }, "d_q_weight has shape (8), expected (4) = head dim of x"],
      [{ dQWeight: bf16(4) }, "d_q_weight has dtype bf16, expected f32"],
      [{ dKWeight: f32(2) }, "d_k_weight has shape (2), expected (4) = head dim of x"],
      [{ dx: over("x", f32(3, 16)) }, "dx overlaps x, expected memory of its own"],
      [
        { dx: over("dy", f32(3, 16), 1) },
        "dx overlaps part of dy, expected memory of its own or exactly that of dy",
      ],
      [
        { dQWeight: over("dKWeight", f32(4)) },
        "d_q_weight overlaps d_k_weight, expected memory of its own",
      ],
    ],
  },
  {
    op: "ropeForward",
    valid: { x: f32(3, 8), ...rope },
    broken: ropeBroken("x"),
    badIndices: ropeIndices,
  },
  {
    op: "ropeBackward",
    valid: { dx: f32(3, 8), ...rope },
    broken: ropeBroken("dx"),
    badIndices: ropeIndices,
  },
  {
    op: "attentionForward",
    valid: { o: f32(3, 8), lse: f32(3, 2), ...attention },
    broken: [
      ...attentionBroken,
      [{ o: f32(3, 4) }, "o has shape (3, 4), expected (3, 8) = rows of qkv, heads x head dim"],
      [{ o: over("qkv", f32(3, 8)) }, "o overlaps qkv, expected memory of its own"],
    ],
    badIndices: attentionIndices,
  },
  {
    op: "attentionBackward",
    valid: {
      dQkv: f32(3, 16),
      delta: f32(3, 2),
      dO: f32(3, 8),
      o: f32(3, 8),
      lse: f32(3, 2),
      ...attention,
    },
    broken: [
      ...attentionBroken,
      [{ dQkv: f32(3, 12) }, "d_qkv has shape (3, 12), expected (3, 16) = shape of qkv"],
      [{ delta: f32(3) }, "delta has shape (3), expected (3, 2) = rows of qkv, heads"],
      [{ dO: f32(2, 8) }, "d_o has shape (2, 8), expected (3, 8) = rows of qkv, heads x head dim"],
      [{ o: bf16(3, 8) }, "o has dtype bf16, expected f32 = dtype of qkv"],
      [{ dQkv: over("qkv", f32(3, 16)) }, "d_qkv overlaps qkv, expected memory of its own"],
      [{ delta: over("lse", f32(3, 2)) }, "delta overlaps lse, expected memory of its own"],
    ],
    badIndices: attentionIndices,
  },
  {
    op: "kvCacheWrite",
    valid: {
      kCache: cache.kCache,
      vCache: cache.vCache,
      qkv: cache.qkv,
      slots: table([3], 0, 1, -1),
      heads: cache.heads,
    },
    broken: [
      ...cacheBroken,
      [{ slots: i32(2) }, "slots has shape (2), expected (3) = rows of qkv"],
      [
        { kCache: over("vCache", f32(5, 4)) },
        "k_cache overlaps v_cache, expected memory of its own",
      ],
    ],
    badIndices: [
      [{ slots: table([3], 0, 5, 1) }, /slots\[1\] is 5, expected -1 <= slots < 5/],
      [{ slots: table([3], 0, 1, -2) }, /slots\[2\] is -2, expected -1 <= slots < 5/],
    ],
  },
  {
    op: "attentionDecode",
    valid: {
      o: f32(3, 8),
      qkv: cache.qkv,
      kCache: cache.kCache,
      vCache: cache.vCache,
      ranges: table([3, 2], 0, 5, 4, 1, 0, 0),
      heads: cache.heads,
    },
    broken: [
      ...cacheBroken,
      [{ o: f32(3, 4) }, "o has shape (3, 4), expected (3, 8) = rows of qkv, heads x head dim"],
      [
        { ranges: i32(3, 3) },
        "ranges has shape (3, 3), expected (3, 2) = rows of qkv, {first, count}",
      ],
      [{ o: over("qkv", f32(3, 8)) }, "o overlaps qkv, expected memory of its own"],
    ],
    badIndices: [
      [{ ranges: table([3, 2], 0, 6, 4, 1, 0, 0) }, /ranges\[0\]/],
      [{ ranges: table([3, 2], 0, 5, 5, 1, 0, 0) }, /ranges\[1\]/],
      [{ ranges: table([3, 2], 0, 5, -1, 1, 0, 0) }, /ranges\[1\]/],
      [{ ranges: table([3, 2], 0, 5, 0, 1, 3, -1) }, /ranges\[2\]/],
    ],
  },
  {
    op: "swigluForward",
    valid: { hidden: f32(3, 4), gateUp: f32(3, 8) },
    broken: [
      [
        { gateUp: f32(3, 9) },
        "gate_up has shape (3, 9), expected (3, 8) = rows, 2 x columns of hidden",
      ],
      [{ gateUp: bf16(3, 8) }, "gate_up has dtype bf16, expected f32 = dtype of hidden"],
      [
        { hidden: over("gateUp", f32(3, 4)) },
        "hidden overlaps gate_up, expected memory of its own",
      ],
    ],
  },
  {
    op: "swigluBackward",
    valid: { dGateUp: f32(3, 8), hidden: f32(3, 4), dHidden: f32(3, 4), gateUp: f32(3, 8) },
    broken: [
      [{ hidden: f32(3, 5) }, "hidden has shape (3, 5), expected (3, 4) = shape of d_hidden"],
      [
        { hidden: over("gateUp", f32(3, 4)) },
        "hidden overlaps gate_up, expected memory of its own",
      ],
      [{ dGateUp: f32(3, 7) }, "d_gate_up has shape (3, 7), expected (3, 8) = shape of gate_up"],
      [{ dHidden: f32(12) }, "d_hidden has shape (12), expected a matrix"],
      [
        { dGateUp: over("gateUp", f32(3, 8), 1) },
        "d_gate_up overlaps part of gate_up, expected memory of its own or exactly that of gate_up",
      ],
    ],
  },
  {
    op: "gatherRows",
    valid: { y: f32(2, 4), x: f32(3, 4), rows: table([2], 2, -1) },
    broken: [
      [{ y: f32(3, 4) }, "y has shape (3, 4), expected (2, 4) = size of rows, columns of x"],
      [{ y: bf16(2, 4) }, "y has dtype bf16, expected f32 = dtype of x"],
      [{ rows: f32(2) }, "rows has dtype f32, expected i32"],
      [{ y: over("x", f32(2, 4)) }, "y overlaps x, expected memory of its own"],
    ],
    badIndices: [
      [{ rows: table([2], 0, 3) }, /rows\[1\] is 3, expected -1 <= rows < 3/],
      [{ rows: table([2], -2, 0) }, /rows\[0\] is -2, expected -1 <= rows < 3/],
    ],
  },
  {
    op: "scatterRows",
    valid: { dx: f32(3, 4), dy: f32(2, 4), sources: table([3, 2], 0, -1, 1, 0, -1, -1) },
    broken: [
      [{ dx: f32(3, 5) }, "dx has shape (3, 5), expected (3, 4) = any rows, columns of dy"],
      [{ sources: i32(3, 1) }, "sources has shape (3, 1), expected (3, 2) = rows of dx, 2 sources"],
      [{ dx: over("dy", f32(3, 4)) }, "dx overlaps dy, expected memory of its own"],
    ],
    badIndices: [
      [
        { sources: table([3, 2], 0, -1, 1, 2, -1, -1) },
        /sources\[1\]\[1\] is 2, expected -1 <= sources < 2/,
      ],
      [{ sources: table([3, 2], 0, -1, 1, 0, -2, -1) }, /sources\[2\]\[0\] is -2/],
    ],
  },
  {
    op: "logprobForward",
    valid: { logp: f32(3), lse: f32(3), logits: f32(3, 8), labels: table([3], 7, -1, 0) },
    broken: [
      [{ logits: bf16(3, 8) }, "logits has dtype bf16, expected f32"],
      [{ logp: f32(2) }, "logp has shape (2), expected (3) = rows of logits"],
      [{ lse: f32(3, 1) }, "lse has shape (3, 1), expected (3) = rows of logits"],
      [{ labels: i32(4) }, "labels has shape (4), expected (3) = rows of logits"],
    ],
    badIndices: [
      [{ labels: table([3], 0, 8, 0) }, /labels\[1\] is 8, expected -1 <= labels < 8/],
      [{ labels: table([3], 0, 0, -2) }, /labels\[2\] is -2, expected -1 <= labels < 8/],
    ],
  },
  {
    op: "logprobBackward",
    valid: {
      dLogits: f32(3, 8),
      logits: f32(3, 8),
      lse: f32(3),
      labels: i32(3),
      coefficient: f32(3),
    },
    broken: [
      [{ dLogits: f32(3, 4) }, "d_logits has shape (3, 4), expected (3, 8) = shape of logits"],
      [{ dLogits: i32(3, 8) }, "d_logits has dtype i32, expected f32 or bf16"],
      [{ coefficient: f32(1) }, "coefficient has shape (1), expected (3) = rows of logits"],
      [
        { dLogits: over("logits", bf16(3, 8)) },
        "d_logits lies over logits with 16 bytes per row, expected 32 = bytes per row of logits",
      ],
      [
        { dLogits: over("logits", f32(3, 8), 1) },
        "d_logits overlaps logits, expected memory of its own",
      ],
    ],
    badIndices: [[{ labels: table([3], 0, 8, 0) }, /labels\[1\] is 8, expected -1 <= labels < 8/]],
  },
  { op: "simperLoss", valid: response, broken: responseBroken, badIndices: responseIndices },
  { op: "sftLoss", valid: response, broken: responseBroken, badIndices: responseIndices },
  { op: "simperSftLoss", valid: pairResponse, broken: pairBroken, badIndices: pairIndices },
  {
    op: "sigmoidLoss",
    valid: { ...pairResponse, beta: 2, gammaBetaRatio: 0.25, labelSmoothing: 0.1 },
    broken: [
      ...marginBroken,
      [{ labelSmoothing: 1.5 }, "label_smoothing is 1.5, expected 0 to 1"],
      [{ labelSmoothing: Number.NaN }, "label_smoothing is nan, expected 0 to 1"],
    ],
    badIndices: pairIndices,
  },
  {
    op: "hingeLoss",
    valid: { ...pairResponse, beta: 2, gammaBetaRatio: 0.25 },
    broken: marginBroken,
    badIndices: pairIndices,
  },
  {
    op: "sumSquares",
    valid: { partials: f32(2), x: f32(9) },
    broken: [
      [{ partials: f32(0) }, "partials has shape (0), expected at least 1 block"],
      [{ x: bf16(9) }, "x has dtype bf16, expected f32"],
      [{ x: f32(3, 3) }, "x has shape (3, 3), expected a vector"],
      [{ partials: over("x", f32(2)) }, "partials overlaps x, expected memory of its own"],
    ],
  },
  {
    op: "clipFactor",
    valid: { out: f32(2), partials: f32(4), maxNorm: 1 },
    broken: [
      [{ out: f32(3) }, "out has shape (3), expected (2) = {norm, factor}"],
      [{ maxNorm: -1 }, "max_norm is -1, expected 0 (never clips) or more"],
      [{ maxNorm: Number.NaN }, "max_norm is nan, expected 0 (never clips) or more"],
    ],
  },
  {
    op: "adamw",
    valid: {
      weight: f32(9),
      master: f32(9),
      m: f32(9),
      v: f32(9),
      grad: f32(9),
      clip: f32(2),
      lr: 1e-3,
      beta1: 0.9,
      beta2: 0.999,
      eps: 1e-8,
      weightDecay: 0,
      step: 1,
    },
    broken: [
      [{ master: bf16(9) }, "master has dtype bf16, expected f32"],
      [{ grad: f32(8) }, "grad has shape (8), expected (9) = size of weight"],
      [{ clip: f32(1) }, "clip has shape (1), expected (2) = {norm, factor}"],
      [{ lr: Number.NaN }, "lr is nan, expected a finite number"],
      [{ beta1: 1 }, "beta1 is 1, expected 0 <= beta1 < 1"],
      [{ beta2: -0.5 }, "beta2 is -0.5, expected 0 <= beta2 < 1"],
      [{ eps: -1 }, "eps is -1, expected 0 or more"],
      [{ weightDecay: Number.POSITIVE_INFINITY }, "weight_decay is inf, expected a finite number"],
      [{ step: 0 }, "step is 0, expected at least 1"],
      [{ weight: over("grad", f32(9)) }, "weight overlaps grad, expected memory of its own"],
      [{ m: over("v", f32(9)) }, "v overlaps m, expected memory of its own"],
    ],
  },
];
