import assert from "node:assert/strict";
import { test } from "node:test";
import { allCases } from "./cases/index.js";
import type { OpCase } from "./harness/case.js";
import { openRig, type Rig, TEST_DEVICES } from "./harness/devices.js";
import { testSeed } from "./harness/random.js";
import { rawBits, runCase } from "./harness/run.js";
import { drawValues, type Values } from "./harness/values.js";

// oneDNN may split a sum differently for another number of threads; every op of ours may not.
const THREAD_DEPENDENT = new Set(["matmul", "matmulAdd"]);

/** The bytes of every output. */
async function bitsOf(rig: Rig, opCase: OpCase, values: Values): Promise<Map<string, Buffer>> {
  const { bits } = await runCase(rig.device, rig.stream, opCase, values);
  const bytes = new Map<string, Buffer>();
  for (const [name, array] of bits) {
    const raw = rawBits(array);
    bytes.set(name, Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength));
  }
  return bytes;
}

/** The emulated device takes seconds for the largest cases; they differ from these in their size alone. */
function fits(deviceName: string, { bytes, flops }: OpCase): boolean {
  return deviceName !== "emulated" || (bytes <= 1e6 && flops <= 1e7);
}

for (const deviceName of TEST_DEVICES) {
  for (const op of new Set(allCases.map((opCase) => opCase.op))) {
    const threadCounts = THREAD_DEPENDENT.has(op) ? [2] : [1, 2, 3];
    test(`${deviceName}: ${op} gives equal bits in two runs on ${threadCounts} threads`, async () => {
      const rigs = threadCounts.map((threads, i) => openRig(deviceName, threads, i + 1));
      const failures: string[] = [];
      for (const opCase of allCases.filter((other) => other.op === op && fits(deviceName, other))) {
        const values = drawValues(opCase);
        const first = await bitsOf(rigs[0]!, opCase, values);
        for (const [i, rig] of rigs.entries()) {
          for (const [name, bytes] of await bitsOf(rig, opCase, values)) {
            if (bytes.equals(first.get(name)!)) continue;
            failures.push(`${op} [${opCase.name}] ${name}, ${threadCounts[i]} threads`);
          }
        }
      }
      for (const rig of rigs) rig[Symbol.dispose]();
      assert.equal(failures.length, 0, `SIMPER_TEST_SEED=${testSeed}\n${failures.join("\n")}`);
    });
  }
}
