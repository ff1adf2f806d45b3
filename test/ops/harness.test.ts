import assert from "node:assert/strict";
import { test } from "node:test";
import { allCases } from "./cases/index.js";
import { given, type OpCase, out } from "./harness/case.js";
import { openRig } from "./harness/devices.js";
import { fromBf16, fromF16, toBf16, toF16 } from "./harness/dtype.js";
import { shifts } from "./harness/layout.js";
import { Random } from "./harness/random.js";
import { runCase } from "./harness/run.js";
import { mismatch } from "./harness/tolerance.js";
import { drawValues } from "./harness/values.js";

// The judge is judged first: a harness that misses a wrong element makes every other test here worthless.

test("harness: bf16 and f16 round to nearest, ties to even, and keep every value of their own", () => {
  for (const [value, bits] of [
    [1, 0x3f80],
    [-2, 0xc000],
    [1 + 2 ** -8, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3f82],
    [3.4028234e38, 0x7f80],
  ] as const) {
    assert.equal(toBf16(value), bits, `bf16 of ${value}`);
  }
  for (const [value, bits] of [
    [1, 0x3c00],
    [-2, 0xc000],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [65504, 0x7bff],
    [65519.99, 0x7bff],
    [65520, 0x7c00],
    [2 ** -24, 1],
    [2 ** -25, 0],
    [2 ** -14 - 2 ** -25, 0x400],
    [0.333251953125, 0x3555],
  ] as const) {
    assert.equal(toF16(value), bits, `f16 of ${value}`);
  }
  for (let bits = 0; bits < 65536; bits++) {
    if (!Number.isNaN(fromBf16(bits))) assert.equal(toBf16(fromBf16(bits)), bits);
    if (!Number.isNaN(fromF16(bits))) assert.equal(toF16(fromF16(bits)), bits);
  }
});

test("harness: a tolerance lets roundings pass, and neither NaN nor one wrong element in many", () => {
  const random = new Random("tolerance", 1);
  const expected = Float64Array.from({ length: 10_000 }, () => random.normal());
  const noisy = expected.map((x) => x * (1 + 1e-6 * random.normal()));
  const relative = { relative: 1e-5 };
  assert.equal(mismatch(noisy, expected, relative), undefined);
  for (const [index, value] of [
    [77, Number.NaN],
    [0, Number.POSITIVE_INFINITY],
    [9_999, expected[9_999]! + 1e-3],
  ] as const) {
    const wrong = noisy.slice();
    wrong[index] = value;
    for (const tolerance of [relative, { absolute: 1e-4 }, "exact"] as const) {
      assert.match(mismatch(wrong, expected, tolerance) ?? "none", /^element \d+ is/);
    }
  }
  assert.match(
    mismatch(
      expected.map((x) => x * 1.00002),
      expected,
      relative,
    )!,
    /^relative error/,
  );
  assert.match(mismatch(expected.subarray(1), expected, relative)!, /^9999 elements/);
  assert.equal(mismatch([Number.NaN, 0], [Number.NaN, -0], "exact"), undefined);
});

test("harness: the same seed and label draw the same numbers, another seed others", () => {
  const draw = (label: string, seed: number) => {
    const random = new Random(label, seed);
    return Array.from({ length: 8 }, () => random.normal());
  };
  assert.deepEqual(draw("a", 1), draw("a", 1));
  assert.notDeepEqual(draw("a", 1), draw("a", 2));
  assert.notDeepEqual(draw("a", 1), draw("b", 1));
});

test("harness: every op meets tensors that are aligned, and each of them moved off", () => {
  for (const op of new Set(allCases.map((opCase) => opCase.op))) {
    const met = allCases
      .filter((opCase) => opCase.op === op)
      .map((opCase) => {
        const [first, second] = shifts(opCase);
        return first === 0 && second === 0 ? "aligned" : first === 1 ? "first" : "second";
      });
    assert.deepEqual([...new Set(met)].sort(), ["aligned", "first", "second"], op);
  }
});

test("harness: writing an input, or outside an output, is found out", async () => {
  using rig = openRig("cpu");
  const trespasses = async (op: OpCase["op"], args: OpCase["args"]) => {
    const opCase = { op, name: "trespass", args, reference: () => ({}), bytes: 0, flops: 0 };
    return (await runCase(rig.device, rig.stream, opCase, drawValues(opCase))).trespasses;
  };
  assert.deepEqual(
    await trespasses("fill", { x: out("f32", [2, 3], { rowGap: 2 }), value: 0 }),
    [],
  );
  assert.deepEqual(
    await trespasses("fill", { x: given("bf16", [2, 3], new Float64Array(6)), value: 1 }),
    ["x: the input changed at row 0, column 0"],
  );
  // Two means are written over coefficients of which there are none: into the guard behind them.
  assert.deepEqual(
    await trespasses("simperLoss", {
      mean: out("f32", [2], { over: "coefficient" }),
      loss: out("f32", [2]),
      coefficient: out("f32", [0]),
      logp: given("f32", [0], []),
      responses: given("i32", [2, 3], new Array<number>(6).fill(0)),
      scale: 1,
    }),
    ["coefficient: memory at row 0, column 0 was written"],
  );
});
