import assert from "node:assert/strict";
import { test } from "node:test";
import { loadAddon } from "#src/native/load.js";
import { type OpName, opMethod } from "#src/native/ops.js";
import { allCases } from "./cases/index.js";
import { isTensor, type OpCase } from "./harness/case.js";
import { openRig, type Rig, TEST_DEVICES } from "./harness/devices.js";
import { testSeed } from "./harness/random.js";
import { runCase } from "./harness/run.js";
import { defaultTolerance, mismatch } from "./harness/tolerance.js";
import { drawValues } from "./harness/values.js";

/** Everything that is wrong with one call, one line each. */
async function problems(rig: Rig, opCase: OpCase): Promise<string[]> {
  const values = drawValues(opCase);
  const result = await runCase(rig.device, rig.stream, opCase, values);
  const expected = opCase.reference(values);
  const found = [...result.trespasses];
  for (const [name, actual] of result.values) {
    const argument = opCase.args[name]!;
    const reference = expected[name];
    if (reference === undefined || !isTensor(argument)) {
      found.push(`${name}: the case has no reference for it`);
      continue;
    }
    const tolerance = opCase.tolerance?.[name] ?? defaultTolerance(argument.dtype);
    const wrong = mismatch(actual, reference, tolerance);
    if (wrong !== undefined) found.push(`${name}: ${wrong}`);
  }
  return found;
}

test("every op of the table has cases, and every case an op", () => {
  const table = Object.keys(loadAddon().ops).map((name) => opMethod(name as OpName) as string);
  assert.deepEqual(table.sort(), [...new Set(allCases.map(({ op }) => op as string))].sort());
});

for (const deviceName of TEST_DEVICES) {
  for (const op of new Set(allCases.map(({ op }) => op))) {
    test(`${deviceName}: ${op} is its float64 reference within tolerance`, async () => {
      using rig = openRig(deviceName);
      const failures: string[] = [];
      for (const opCase of allCases.filter((other) => other.op === op)) {
        const found = await problems(rig, opCase);
        failures.push(...found.map((line) => `${op} [${opCase.name}] ${line}`));
      }
      assert.equal(failures.length, 0, `SIMPER_TEST_SEED=${testSeed}\n${failures.join("\n")}`);
    });
  }
}
