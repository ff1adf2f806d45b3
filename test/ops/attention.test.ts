import assert from "node:assert/strict";
import { test } from "node:test";
import { attentionBackward, attentionForward } from "./cases/attention.js";
import { matmul } from "./cases/matmul.js";
import { given, isTensor, type OpCase, out, product, scratch } from "./harness/case.js";
import { openRig, type Rig, TEST_DEVICES } from "./harness/devices.js";
import { type Layout, packPairs } from "./harness/packing.js";
import { Random, testSeed } from "./harness/random.js";
import { rawBits, runCase } from "./harness/run.js";
import { drawValues, Values } from "./harness/values.js";
import type { Segment } from "./reference/attention.js";

// What the segment rule promises beyond numbers: bits that must not move when rows nobody sees do.

const [H, K, D] = [4, 2, 64];
const W = (H + 2 * K) * D;
const LAYOUT = packPairs(
  [
    [70, 33, 65],
    [17, 64, 5],
    [0, 40, 31],
  ],
  2,
);

/** Bits of o and lse, and of dQkv, for these inputs. */
async function attention(
  rig: Rig,
  layout: Layout,
  dtype: "f32" | "bf16",
  qkv: Float64Array,
  dO: Float64Array,
  window = 0,
) {
  const { T, segments } = layout;
  const table = segments.flatMap((s) => [s.start, s.end, s.prefixStart, s.prefixEnd]);
  const call = (op: OpCase["op"], args: OpCase["args"], inputs: Record<string, Float64Array>) => {
    const opCase: OpCase = {
      op,
      name: "segments",
      args,
      reference: () => ({}),
      bytes: 0,
      flops: 0,
    };
    const arrays = new Map(Object.entries({ ...inputs, segments: Float64Array.from(table) }));
    return runCase(rig.device, rig.stream, opCase, new Values(args, arrays));
  };
  const shared = {
    qkv: given(dtype, [T, W], []),
    segments: given("i32", [segments.length, 4], []),
    heads: H,
    kvHeads: K,
    window,
  };
  const forward = await call(
    "attentionForward",
    { o: out(dtype, [T, H * D]), lse: out("f32", [T, H]), ...shared },
    { qkv },
  );
  const backward = await call(
    "attentionBackward",
    {
      dQkv: out(dtype, [T, W]),
      delta: scratch("f32", [T, H]),
      dO: given(dtype, [T, H * D], []),
      o: given(dtype, [T, H * D], []),
      lse: given("f32", [T, H], []),
      ...shared,
    },
    { qkv, dO, o: forward.values.get("o")!, lse: forward.values.get("lse")! },
  );
  const bits = new Map([...forward.bits, ...backward.bits]);
  return new Map([...bits].map(([name, array]) => [name, rawBits(array)]));
}

type Bits = Awaited<ReturnType<typeof attention>>;

/** Rows [begin, end) of an output, as plain numbers. */
function rowBits(bits: Bits, name: string, begin: number, end: number, { T } = LAYOUT): number[] {
  const all = bits.get(name)!;
  const columns = all.length / T;
  return [...all.subarray(begin * columns, end * columns)];
}

const OUTPUTS = ["o", "lse", "dQkv"];
const DTYPES = ["f32", "bf16"] as const;

/** Keys that the last row of a segment sees without a window. */
function keysOf({ start, end, prefixStart, prefixEnd }: Segment): number {
  return prefixEnd - prefixStart + end - start;
}

function draw(label: string, { T } = LAYOUT) {
  const random = new Random(label);
  const normals = (n: number) => Float64Array.from({ length: n }, () => random.normal());
  return { qkv: normals(T * W), dO: normals(T * H * D) };
}

for (const deviceName of TEST_DEVICES) {
  test(`${deviceName}: attention: a pair of NaN leaves every other pair bit-identical`, async () => {
    using rig = openRig(deviceName);
    for (const { dtype, window } of product({ dtype: DTYPES, window: [0, 20] })) {
      const { qkv, dO } = draw(`neighbours ${dtype}`);
      const clean = await attention(rig, LAYOUT, dtype, qkv, dO, window);
      for (let poisoned = 0; poisoned < 3; poisoned++) {
        const pairs = [0, 1, 2].map((pair) => LAYOUT.segments.slice(3 * pair, 3 * pair + 3));
        const [begin, end] = [pairs[poisoned]![0]!.start, pairs[poisoned]![2]!.end];
        const dirty = await attention(
          rig,
          LAYOUT,
          dtype,
          qkv.slice().fill(Number.NaN, begin * W, end * W),
          dO.slice().fill(Number.NaN, begin * H * D, end * H * D),
          window,
        );
        for (const segment of pairs.flatMap((pair, i) => (i === poisoned ? [] : pair))) {
          for (const name of OUTPUTS) {
            assert.deepEqual(
              rowBits(dirty, name, segment.start, segment.end),
              rowBits(clean, name, segment.start, segment.end),
              `${dtype} ${name} of rows ${segment.start}..${segment.end}, SIMPER_TEST_SEED=${testSeed}`,
            );
          }
        }
      }
    }
  });

  // NaN shows what is only masked: 0 · NaN is NaN. Keys next to a window may share a tile with its keys.
  test(`${deviceName}: attention: keys a tile and more before the window are not visited`, async () => {
    using rig = openRig(deviceName);
    const [prompt, window] = [400, 50];
    const layout = packPairs([[prompt, 60, 70]], 0);
    const visited = prompt - window - 64;
    for (const dtype of DTYPES) {
      const { qkv, dO } = draw(`far keys ${dtype}`, layout);
      const clean = await attention(rig, layout, dtype, qkv, dO, window);
      const dirty = await attention(
        rig,
        layout,
        dtype,
        qkv.slice().fill(Number.NaN, 0, visited * W),
        dO.slice().fill(Number.NaN, 0, visited * H * D),
        window,
      );
      for (const name of OUTPUTS) {
        assert.deepEqual(
          rowBits(dirty, name, prompt, layout.T, layout),
          rowBits(clean, name, prompt, layout.T, layout),
          `${dtype} ${name}, SIMPER_TEST_SEED=${testSeed}`,
        );
      }
    }
  });

  test(`${deviceName}: attention: a window that hides no key gives the bits of none`, async () => {
    using rig = openRig(deviceName);
    for (const dtype of DTYPES) {
      const { qkv, dO } = draw(`wide ${dtype}`);
      const none = await attention(rig, LAYOUT, dtype, qkv, dO);
      for (const window of [2 * LAYOUT.T, Number.MAX_SAFE_INTEGER]) {
        assert.deepEqual(await attention(rig, LAYOUT, dtype, qkv, dO, window), none, dtype);
      }
      // One key less for the last row of the longest branch, and for no other.
      const longest = LAYOUT.segments.reduce((a, b) => (keysOf(b) > keysOf(a) ? b : a));
      const less = await attention(rig, LAYOUT, dtype, qkv, dO, keysOf(longest) - 1);
      const last = longest.end - 1;
      assert.notDeepEqual(
        rowBits(less, "lse", last, last + 1),
        rowBits(none, "lse", last, last + 1),
      );
      if (dtype === "f32") {
        assert.deepEqual(rowBits(less, "lse", 0, last), rowBits(none, "lse", 0, last));
      }
    }
  });

  test(`${deviceName}: attention: a chosen token says nothing to the rejected branch, nor back`, async () => {
    using rig = openRig(deviceName);
    for (const dtype of DTYPES) {
      const { qkv, dO } = draw(`branches ${dtype}`);
      const before = await attention(rig, LAYOUT, dtype, qkv, dO);
      for (const pair of [0, 1, 2]) {
        const [, chosen, rejected] = LAYOUT.segments.slice(3 * pair, 3 * pair + 3);
        for (const [changed, other] of [
          [chosen!, rejected!],
          [rejected!, chosen!],
        ] as const) {
          const moved = qkv.slice();
          for (let i = changed.start * W; i < changed.end * W; i++) moved[i]! += 0.5;
          const after = await attention(rig, LAYOUT, dtype, moved, dO);
          for (const name of ["o", "lse"]) {
            assert.deepEqual(
              rowBits(after, name, other.start, other.end),
              rowBits(before, name, other.start, other.end),
              `${dtype} ${name}, pair ${pair}, SIMPER_TEST_SEED=${testSeed}`,
            );
            assert.notDeepEqual(
              rowBits(after, name, changed.start, changed.end),
              rowBits(before, name, changed.start, changed.end),
            );
          }
          // The gradient of the other branch's own rows depends on the prompt and itself alone, too.
          assert.deepEqual(
            rowBits(after, "dQkv", other.start, other.end),
            rowBits(before, "dQkv", other.start, other.end),
            `${dtype} dQkv, pair ${pair}, SIMPER_TEST_SEED=${testSeed}`,
          );
        }
      }
    }
  });

  test(`${deviceName}: attention: a later token changes no earlier row`, async () => {
    using rig = openRig(deviceName);
    for (const dtype of DTYPES) {
      const { qkv, dO } = draw(`causal ${dtype}`);
      const before = await attention(rig, LAYOUT, dtype, qkv, dO);
      for (const segment of LAYOUT.segments.filter(({ start, end }) => end - start > 2)) {
        const t = Math.floor((segment.start + segment.end) / 2);
        const moved = qkv.slice();
        for (let i = t * W; i < segment.end * W; i++) moved[i]! += 0.5;
        const after = await attention(rig, LAYOUT, dtype, moved, dO);
        for (const name of ["o", "lse"]) {
          assert.deepEqual(
            rowBits(after, name, segment.start, t),
            rowBits(before, name, segment.start, t),
            `${dtype} ${name} before row ${t}, SIMPER_TEST_SEED=${testSeed}`,
          );
        }
      }
    }
  });

  // Both may configure the tile registers of a thread, each for its own shapes.
  test(`${deviceName}: attention and matmul take turns on the same threads and keep their bits`, async () => {
    const products = matmul.filter(({ args }) => dtypesOf(args).includes("bf16"));
    assert.ok(products.length > 0);
    const { qkv, dO } = draw("turns");
    const attentionBits = (rig: Rig) => attention(rig, LAYOUT, "bf16", qkv, dO);
    const productBits = async (rig: Rig, opCase: OpCase) => {
      const { bits } = await runCase(rig.device, rig.stream, opCase, drawValues(opCase));
      return [...bits.values()].map(rawBits);
    };
    using alone = openRig(deviceName);
    const aloneProducts = [];
    for (const opCase of products) aloneProducts.push(await productBits(alone, opCase));
    using other = openRig(deviceName);
    const aloneAttention = await attentionBits(other);
    using shared = openRig(deviceName);
    for (const [i, opCase] of products.entries()) {
      assert.deepEqual(await attentionBits(shared), aloneAttention, `before ${opCase.name}`);
      assert.deepEqual(await productBits(shared, opCase), aloneProducts[i], opCase.name);
    }
  });
}

function dtypesOf(args: OpCase["args"]): string[] {
  return Object.values(args).flatMap((arg) => (isTensor(arg) ? [arg.dtype] : []));
}

test("attention: the cases cover every two lengths of prompt, chosen and rejected", () => {
  const triples = (cases: readonly OpCase[]) =>
    cases.flatMap(({ name }) =>
      [...name.matchAll(/(\d+)\+(\d+)\+(\d+)/g)].map((m) => m.slice(1, 4)),
    );
  for (const cases of [attentionForward, attentionBackward]) {
    for (const [a, b] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ] as const) {
      const seen = new Set(triples(cases).map((triple) => `${triple[a]} ${triple[b]}`));
      for (const x of [0, 1, 15, 16, 17, 63, 64, 65, 127, 129]) {
        for (const y of [0, 1, 15, 16, 17, 63, 64, 65, 127, 129]) assert.ok(seen.has(`${x} ${y}`));
      }
    }
  }
});
