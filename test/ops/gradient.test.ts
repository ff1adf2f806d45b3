import assert from "node:assert/strict";
import { test } from "node:test";
import { allCases } from "./cases/index.js";
import type { Gradient, OpCase } from "./harness/case.js";
import { openRig, type Rig, TEST_DEVICES } from "./harness/devices.js";
import { Random, testSeed } from "./harness/random.js";
import { runCase } from "./harness/run.js";
import { mismatch } from "./harness/tolerance.js";
import { drawValues, type Values } from "./harness/values.js";

// Central differences in float64: the error of the formula is STEP², that of rounding 1e-16/STEP.
const STEP = 1e-5;

// Enough to catch any wrong formula; all of them when there are fewer.
const MAX_ELEMENTS = 512;

// The op computes in f32 from inputs such as lse that were rounded to f32.
const TOLERANCE = { relative: 2e-5 };

/** d loss / d input[i] for each i of `elements`, by moving that element alone. */
function differences(
  loss: (values: Values) => number,
  values: Values,
  input: string,
  elements: readonly number[],
): Float64Array {
  return Float64Array.from(elements, (i) => {
    const moved = (by: number) => {
      const array = values.array(input).slice();
      array[i]! += by;
      return loss(values.with(input, array));
    };
    return (moved(STEP) - moved(-STEP)) / (2 * STEP);
  });
}

async function check(rig: Rig, opCase: OpCase, gradient: Gradient): Promise<string[]> {
  const drawn = drawValues(opCase);
  const result = await runCase(rig.device, rig.stream, opCase, drawn);
  const reference = opCase.reference(drawn);
  let values = drawn;
  for (const [name, array] of Object.entries(gradient.start?.(drawn) ?? {})) {
    values = values.with(name, array);
  }
  const failures: string[] = [];
  for (const [output, input] of Object.entries(gradient.of)) {
    const elements = new Random(`${opCase.op} ${opCase.name} elements`)
      .permutation(values.array(input).length)
      .slice(0, MAX_ELEMENTS);
    const expected = differences(gradient.loss, values, input, elements);
    const accumulates = drawn.names().includes(output) && gradient.inPlace !== true;
    const gained = (array: ArrayLike<number>) =>
      elements.map((i) => array[i]! - (accumulates ? drawn.array(output)[i]! : 0));
    for (const [who, array] of [
      ["op", result.values.get(output)!],
      ["reference", reference[output]!],
    ] as const) {
      const wrong = mismatch(gained(array), expected, TOLERANCE);
      if (wrong) failures.push(`${opCase.op} [${opCase.name}] ${who}, ${output}: ${wrong}`);
    }
  }
  return failures;
}

const gradientCases = allCases.filter(({ gradient }) => gradient !== undefined);

test("every backward op, loss and inverse list has a finite-difference case", () => {
  const expected = allCases
    .map(({ op }) => op as string)
    .filter((op) => /Backward|Loss|scatter/.test(op));
  const checked = gradientCases.map(({ op }) => op as string);
  assert.deepEqual([...new Set(checked)].sort(), [...new Set(expected)].sort());
});

for (const deviceName of TEST_DEVICES) {
  for (const op of new Set(gradientCases.map(({ op }) => op))) {
    test(`${deviceName}: ${op} is the derivative of the forward, by finite differences`, async () => {
      using rig = openRig(deviceName);
      const failures: string[] = [];
      for (const opCase of gradientCases.filter((other) => other.op === op)) {
        failures.push(...(await check(rig, opCase, opCase.gradient!)));
      }
      assert.equal(failures.length, 0, `SIMPER_TEST_SEED=${testSeed}\n${failures.join("\n")}`);
    });
  }
}
