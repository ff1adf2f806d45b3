import assert from "node:assert/strict";
import { test } from "node:test";
import { given, type OpCase, out, scratch } from "../ops/harness/case.js";
import { openRig, type Rig, TEST_DEVICES } from "../ops/harness/devices.js";
import { rounded } from "../ops/harness/dtype.js";
import { type Layout, packPairs } from "../ops/harness/packing.js";
import { Random, testSeed } from "../ops/harness/random.js";
import { rawBits, runCase } from "../ops/harness/run.js";
import { Values } from "../ops/harness/values.js";
import { attentionBackward, attentionForward, type Segment } from "../ops/reference/attention.js";

// What the attention kernels of the CUDA device promise beyond the op cases: errors of each gradient by itself, the
// layouts that no packer makes but the op allows, and bits.

const DEVICES = TEST_DEVICES.filter((name) => name !== "cpu");

interface Shape {
  readonly H: number;
  readonly K: number;
  readonly D: number;
  readonly dtype: "f32" | "bf16";
}

interface Inputs {
  readonly qkv: Float64Array;
  readonly dO: Float64Array;
}

type Bits = ReadonlyMap<string, Uint32Array | Uint16Array>;

interface Outcome {
  /** o, lse and dQkv of the device, in float64. */
  readonly values: ReadonlyMap<string, Float64Array>;
  readonly bits: Bits;
  /** What the backward was given: o and lse as the forward left them. */
  readonly o: Float64Array;
  readonly lse: Float64Array;
}

const columnsOf = ({ H, K, D }: Shape) => ({ qkv: (H + 2 * K) * D, o: H * D, lse: H });
const nameOf = ({ H, K, D, dtype }: Shape) => `H=${H} K=${K} D=${D} ${dtype}`;

function draw(label: string, { T }: Layout, shape: Shape, scale = 1): Inputs {
  const random = new Random(label);
  const { qkv, o } = columnsOf(shape);
  const normals = (n: number, size: number) =>
    rounded(
      shape.dtype,
      Float64Array.from({ length: n }, () => size * random.normal()),
    );
  return { qkv: normals(T * qkv, scale), dO: normals(T * o, 1) };
}

/** The forward, and the backward of what it gave, on one device. */
async function attention(
  rig: Rig,
  { T, segments, name }: Layout,
  shape: Shape,
  { qkv, dO }: Inputs,
  window = 0,
): Promise<Outcome> {
  const { H, K, dtype } = shape;
  const columns = columnsOf(shape);
  const table = segments.flatMap((s) => [s.start, s.end, s.prefixStart, s.prefixEnd]);
  const call = async (
    op: OpCase["op"],
    args: OpCase["args"],
    inputs: Record<string, Float64Array>,
  ) => {
    const opCase: OpCase = { op, name, args, reference: () => ({}), bytes: 0, flops: 0 };
    const arrays = new Map(Object.entries({ ...inputs, segments: Float64Array.from(table) }));
    const result = await runCase(rig.device, rig.stream, opCase, new Values(args, arrays));
    assert.deepEqual(result.trespasses, [], `${op} ${nameOf(shape)}: ${name}`);
    return result;
  };
  const shared = {
    qkv: given(dtype, [T, columns.qkv], []),
    segments: given("i32", [segments.length, 4], []),
    heads: H,
    kvHeads: K,
    window,
  };
  const forward = await call(
    "attentionForward",
    { o: out(dtype, [T, columns.o]), lse: out("f32", [T, H]), ...shared },
    { qkv },
  );
  const o = forward.values.get("o")!;
  const lse = forward.values.get("lse")!;
  const backward = await call(
    "attentionBackward",
    {
      dQkv: out(dtype, [T, columns.qkv]),
      delta: scratch("f32", [T, H]),
      dO: given(dtype, [T, columns.o], []),
      o: given(dtype, [T, columns.o], []),
      lse: given("f32", [T, H], []),
      ...shared,
    },
    { qkv, dO, o, lse },
  );
  return {
    values: new Map([...forward.values, ...backward.values]),
    bits: new Map([...forward.bits, ...backward.bits].map(([key, array]) => [key, rawBits(array)])),
    o,
    lse,
  };
}

/** Columns [begin, end) of every row. */
function columns(x: Float64Array, width: number, begin: number, end: number): Float64Array {
  return x.filter((_, i) => begin <= i % width && i % width < end);
}

function norm(x: Float64Array): number {
  return Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
}

/** ‖actual − expected‖; NaN counts as wrong, never as equal. */
function distance(actual: Float64Array, expected: Float64Array): number {
  return norm(actual.map((value, i) => value - expected[i]!));
}

/** Every output that is further from float64 than it may be. */
function errors(
  layout: Layout,
  shape: Shape,
  inputs: Inputs,
  outcome: Outcome,
  window: number,
): string[] {
  const { H, K, D, dtype } = shape;
  const W = columnsOf(shape).qkv;
  const matrix = { rows: layout.T, columns: W, data: inputs.qkv };
  const forward = attentionForward(matrix, layout.segments, H, K, window);
  // On the same inputs: o and lse as the device rounded them.
  const { dO } = inputs;
  const { o, lse } = outcome;
  const dQkv = attentionBackward(dO, o, lse, matrix, layout.segments, H, K, window);
  const found: string[] = [];
  const check = (
    name: string,
    actual: Float64Array,
    expected: Float64Array,
    limit: number,
    floor = 0,
  ) => {
    const error = distance(actual, expected) / (norm(expected) + floor || 1);
    if (error <= limit) return;
    const where = `${nameOf(shape)} [${layout.name}], window ${window}`;
    found.push(`${where} ${name}: ${error.toExponential(2)}`);
  };
  // A bf16 result and the probabilities inside are rounded to 2^-9; a score's gradient, a difference, weighs double.
  const [bound, score] = dtype === "bf16" ? [4e-3, 8e-3] : [1e-5, 1e-5];
  // ds cancels to nothing for a key that is alone; its error is that of do·v.
  const floor = 0.01 * norm(inputs.dO);
  check("o", outcome.values.get("o")!, forward.o, bound);
  check("lse", outcome.values.get("lse")!, forward.lse, 1e-5);
  const parts = [
    ["dq", 0, H * D, score, floor],
    ["dk", H * D, (H + K) * D, score, floor],
    ["dv", (H + K) * D, W, bound, 0],
  ] as const;
  for (const [name, begin, end, limit, least] of parts) {
    const [actual, expected] = [outcome.values.get("dQkv")!, dQkv].map((x) =>
      columns(x, W, begin, end),
    );
    check(name, actual!, expected!, limit, least);
  }
  return found;
}

const LENGTHS = [1, 15, 16, 17, 63, 64, 65, 127, 129];

/** Every two of prompt, chosen and rejected take every two lengths. */
const TRIPLES = LENGTHS.flatMap((prompt, i) =>
  LENGTHS.map((chosen, j) => [prompt, chosen, LENGTHS[(i + j) % LENGTHS.length]!]),
);

const tensorCores = [64, 96, 128].map((D) => ({ H: 1, K: 1, D, dtype: "bf16" }) as const);
// Every group size with every head dim, and the kernels for the other ones.
const GROUPS: readonly Shape[] = [
  { H: 6, K: 2, D: 64, dtype: "bf16" },
  { H: 8, K: 1, D: 64, dtype: "bf16" },
  { H: 4, K: 1, D: 96, dtype: "bf16" },
  { H: 8, K: 1, D: 128, dtype: "bf16" },
  { H: 3, K: 1, D: 128, dtype: "bf16" },
  { H: 3, K: 1, D: 40, dtype: "bf16" },
  { H: 4, K: 1, D: 8, dtype: "f32" },
  { H: 6, K: 2, D: 128, dtype: "f32" },
  { H: 2, K: 1, D: 200, dtype: "f32" },
];

const segment = (start: number, end: number, prefixStart = start, prefixEnd = prefixStart) => ({
  start,
  end,
  prefixStart,
  prefixEnd,
});

/** What the op allows and no packer makes. */
const LAYOUTS: readonly Layout[] = [
  {
    name: "three branches of one prompt, one of them of its first half",
    T: 330,
    segments: [
      segment(0, 100),
      segment(100, 170, 0, 100),
      segment(170, 250, 0, 100),
      segment(250, 330, 0, 50),
    ],
  },
  {
    name: "a prompt inside its chosen segment",
    T: 300,
    segments: [segment(0, 200), segment(200, 300, 0, 90)],
  },
  {
    name: "a prefix across two segments, out of order, with gaps",
    T: 290,
    segments: [segment(200, 280, 30, 150), segment(100, 180, 20, 30), segment(5, 98)],
  },
  {
    name: "a prefix of a branch of a prefix",
    T: 220,
    segments: [segment(0, 70), segment(70, 140, 0, 70), segment(150, 220, 100, 140)],
  },
  {
    name: "a prefix behind its segment, and one that is the segment itself",
    T: 150,
    segments: [segment(0, 60, 70, 130), segment(70, 130), segment(130, 150, 130, 140)],
  },
];

const LAYOUT = packPairs(
  [
    [70, 33, 65],
    [17, 64, 5],
    [0, 40, 31],
    [130, 0, 1],
  ],
  2,
);
const BIT_SHAPES: readonly Shape[] = [
  { H: 2, K: 1, D: 96, dtype: "bf16" },
  { H: 2, K: 2, D: 128, dtype: "bf16" },
  { H: 2, K: 1, D: 40, dtype: "bf16" },
  { H: 2, K: 1, D: 128, dtype: "f32" },
];

/** Rows [begin, end) of an output. */
function rowBits(bits: Bits, name: string, { T }: Layout, begin: number, end: number): number[] {
  const all = bits.get(name)!;
  const width = all.length / T;
  return [...all.subarray(begin * width, end * width)];
}

function assertRows(after: Bits, before: Bits, layout: Layout, rows: Segment, where: string): void {
  for (const name of ["o", "lse", "dQkv"]) {
    assert.deepEqual(
      rowBits(after, name, layout, rows.start, rows.end),
      rowBits(before, name, layout, rows.start, rows.end),
      `${where}: ${name} of rows ${rows.start}..${rows.end}, SIMPER_TEST_SEED=${testSeed}`,
    );
  }
}

if (DEVICES.length === 0) {
  test("attention on the CUDA device", { skip: "skipped: no CUDA device" }, () => {});
}

for (const deviceName of DEVICES) {
  const compare = async (cases: readonly (readonly [Layout, Shape])[], window = 0) => {
    using rig = openRig(deviceName);
    const found: string[] = [];
    for (const [layout, shape] of cases) {
      const inputs = draw(`${layout.name} ${nameOf(shape)}`, layout, shape);
      const outcome = await attention(rig, layout, shape, inputs, window);
      found.push(...errors(layout, shape, inputs, outcome, window));
    }
    assert.equal(found.length, 0, `SIMPER_TEST_SEED=${testSeed}\n${found.join("\n")}`);
  };

  test(`${deviceName}: attention: every two lengths of prompt, chosen and rejected`, () =>
    compare(
      tensorCores.flatMap((shape, d) =>
        [0, 1, 2].map(
          (part) =>
            [
              packPairs(
                TRIPLES.filter((_, i) => i % 3 === part),
                d,
              ),
              shape,
            ] as const,
        ),
      ),
    ));

  // Tiles have 16 to 64 rows: a window inside of one, across two, and longer than some segments. (In a window of one
  // key, an op case, the gradients of q and k are nothing but rounding.)
  for (const window of [2, 40, 100]) {
    test(`${deviceName}: attention: a window of ${window} keys, with every group size and layout`, () =>
      compare(
        [
          ...GROUPS.map((shape, i) => [LAYOUTS[i % LAYOUTS.length]!, shape] as const),
          ...LAYOUTS.map((layout, i) => [layout, tensorCores[i % tensorCores.length]!] as const),
        ],
        window,
      ));
  }

  test(`${deviceName}: attention: groups of 1, 3, 4 and 8 query heads`, () =>
    compare(
      GROUPS.map((shape, i) => [packPairs(TRIPLES.slice(40 + 2 * i, 42 + 2 * i), 1), shape]),
    ));

  test(`${deviceName}: attention: 1000 tokens and more, few segments and wide tiles`, () =>
    compare([
      [packPairs([[20, 1000, 129]], 0), { H: 1, K: 1, D: 64, dtype: "bf16" }],
      [packPairs([[1000, 64, 300]], 0), { H: 1, K: 1, D: 128, dtype: "bf16" }],
      [packPairs([[0, 500, 300]], 3), { H: 1, K: 1, D: 96, dtype: "bf16" }],
      [packPairs([[300, 100, 1]], 0), { H: 1, K: 1, D: 64, dtype: "f32" }],
    ]));

  test(`${deviceName}: attention: segments may name any prefix, and several the same`, () =>
    compare(
      LAYOUTS.flatMap((layout) =>
        [
          { H: 2, K: 1, D: 64, dtype: "bf16" } as const,
          { H: 2, K: 1, D: 128, dtype: "bf16" } as const,
          { H: 2, K: 2, D: 32, dtype: "f32" } as const,
        ].map((shape) => [layout, shape] as const),
      ),
    ));

  test(`${deviceName}: attention: a sequence of NaN leaves every other bit-identical`, async () => {
    using rig = openRig(deviceName);
    for (const shape of BIT_SHAPES) {
      const width = columnsOf(shape);
      const inputs = draw(`neighbours ${nameOf(shape)}`, LAYOUT, shape);
      const clean = await attention(rig, LAYOUT, shape, inputs);
      const pairs = [0, 1, 2, 3].map((pair) => LAYOUT.segments.slice(3 * pair, 3 * pair + 3));
      for (const poisoned of pairs) {
        const [begin, end] = [poisoned[0]!.start, poisoned[2]!.end];
        const dirty = await attention(rig, LAYOUT, shape, {
          qkv: inputs.qkv.slice().fill(Number.NaN, begin * width.qkv, end * width.qkv),
          dO: inputs.dO.slice().fill(Number.NaN, begin * width.o, end * width.o),
        });
        for (const rows of pairs.filter((pair) => pair !== poisoned).flat()) {
          assertRows(dirty.bits, clean.bits, LAYOUT, rows, nameOf(shape));
        }
      }
    }
  });

  test(`${deviceName}: attention: a branch of NaN leaves its sibling and a cut prompt alone`, async () => {
    using rig = openRig(deviceName);
    // The prompt is the first 70 rows of its segment: rows 70 and 71 share no tile of keys with it.
    const layout = {
      name: "cut prompt",
      T: 200,
      segments: [segment(0, 110), segment(110, 150, 0, 70), segment(150, 200)],
    };
    for (const shape of BIT_SHAPES) {
      const width = columnsOf(shape);
      const inputs = draw(`cut ${nameOf(shape)}`, layout, shape);
      const clean = await attention(rig, layout, shape, inputs);
      const dirty = await attention(rig, layout, shape, {
        qkv: inputs.qkv.slice().fill(Number.NaN, 110 * width.qkv, 150 * width.qkv),
        dO: inputs.dO.slice().fill(Number.NaN, 110 * width.o, 150 * width.o),
      });
      for (const rows of [segment(70, 110), segment(150, 200)]) {
        assertRows(dirty.bits, clean.bits, layout, rows, nameOf(shape));
      }
    }
  });

  test(`${deviceName}: attention: a chosen token says nothing to the rejected branch`, async () => {
    using rig = openRig(deviceName);
    for (const shape of BIT_SHAPES) {
      const width = columnsOf(shape);
      const inputs = draw(`branches ${nameOf(shape)}`, LAYOUT, shape);
      const before = await attention(rig, LAYOUT, shape, inputs);
      for (const pair of [0, 1, 2]) {
        const [, chosen, rejected] = LAYOUT.segments.slice(3 * pair, 3 * pair + 3);
        for (const t of [chosen!.start, chosen!.end - 1]) {
          const qkv = inputs.qkv.slice();
          for (let i = t * width.qkv; i < (t + 1) * width.qkv; i++) qkv[i]! += 0.5;
          const after = await attention(rig, LAYOUT, shape, { ...inputs, qkv });
          assertRows(after.bits, before.bits, LAYOUT, rejected!, nameOf(shape));
          assert.notDeepEqual(
            rowBits(after.bits, "o", LAYOUT, t, t + 1),
            rowBits(before.bits, "o", LAYOUT, t, t + 1),
          );
        }
      }
    }
  });

  test(`${deviceName}: attention: 20 runs give equal bits`, async () => {
    using rig = openRig(deviceName);
    for (const shape of BIT_SHAPES) {
      const layout = packPairs([[70, 33, 65]], 2);
      const inputs = draw(`reruns ${nameOf(shape)}`, layout, shape);
      const first = await attention(rig, layout, shape, inputs);
      for (let run = 1; run < 20; run++) {
        const { bits } = await attention(rig, layout, shape, inputs);
        for (const [name, array] of bits) {
          assert.ok(
            Buffer.from(array.buffer, array.byteOffset, array.byteLength).equals(
              Buffer.from(first.bits.get(name)!.buffer),
            ),
            `${nameOf(shape)} ${name}, run ${run}, SIMPER_TEST_SEED=${testSeed}`,
          );
        }
      }
    }
  });

  test(`${deviceName}: attention: constant logits, logits of ±1e4 and empty parts stay finite`, async () => {
    using rig = openRig(deviceName);
    for (const shape of BIT_SHAPES) {
      const { dO, qkv } = draw(`finite ${nameOf(shape)}`, LAYOUT, shape);
      const { H, K, D } = shape;
      const W = columnsOf(shape).qkv;
      const isValue = (i: number) => i % W >= (H + K) * D;
      // q = ±size in every column, k = size: every logit is ±size²·√D.
      const filled = (size: number, signed: boolean) =>
        qkv.map((value, i) => {
          if (isValue(i)) return value;
          const sign = signed && i % W >= H * D && Math.floor(i / W) % 3 === 0 ? -1 : 1;
          return rounded(shape.dtype, [sign * size])[0]!;
        });
      for (const [name, size, signed] of [
        ["zeros", 0, false],
        ["constant", 1, false],
        ["+1e4", Math.sqrt(1e4 / Math.sqrt(D)), false],
        ["±1e4", Math.sqrt(1e4 / Math.sqrt(D)), true],
      ] as const) {
        const { values } = await attention(rig, LAYOUT, shape, { qkv: filled(size, signed), dO });
        for (const [output, array] of values) {
          assert.ok(array.every(Number.isFinite), `${nameOf(shape)} ${name}: ${output}`);
        }
      }
    }
  });
}
