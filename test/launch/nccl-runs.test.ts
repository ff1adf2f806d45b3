import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { TEST_DEVICES } from "../ops/harness/devices.js";
import { root } from "../support/paths.js";
import { outputOf, temporaryFolder, trajectory } from "../train/support.js";
import { createNetwork } from "./netns.js";
import { freePort, start, torchrunVariables } from "./support.js";

// How ranks with a GPU each meet: over TCP at MASTER_ADDR:MASTER_PORT, here between two machines, and then by NCCL. On
// the emulated device NCCL is the one that is made for tests.

const network = createNetwork();
after(() => network.remove());
const skip = TEST_DEVICES.includes("emulated")
  ? network.skip
  : "needs the emulated device: npm run test:emulator";

const program = path.join(root, "dist-test", "train", "rank.js");
const RANKS = 4;

test("machines: ranks that meet over TCP and exchange by NCCL follow one process", {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const binding = process.env.SIMPER_NATIVE_BINDING!;
  const env = {
    SIMPER_NATIVE_BINDING: binding,
    SIMPER_NCCL: path.join(path.dirname(binding), "simper_fake_nccl.so"),
    SIMPER_RUN_TOKEN: "a secret of the tests",
    SIMPER_TEST_REPORTS: folder,
    OMP_NUM_THREADS: "1",
  };
  const task = (name: string, zeroStage: 0 | 2 | 3, ranks: number): string[] => {
    const share = { perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 8 / ranks };
    const outputDir = path.join(folder, name);
    const recipe = { ...trajectory({ maxSteps: 3, zeroStage, ...share }), outputDir };
    const file = path.join(folder, `${name}.json`);
    writeFileSync(file, JSON.stringify({ recipe, device: "emulated" }));
    return [process.execPath, program, file];
  };
  const curve = (name: string): number[] =>
    outputOf(path.join(folder, name)).steps.flatMap(({ loss, grad_norm }) => [loss!, grad_norm!]);

  const one = start(task("alone", 0, 1), { env });
  assert.equal((await one.ended).code, 0, one.err());
  const expected = curve("alone");
  assert.equal(expected.length, 6);
  for (const stage of [2, 3] as const) {
    const command = task(`stage ${stage}`, stage, RANKS);
    const port = await freePort();
    const runs = Array.from({ length: RANKS }, (_, rank) => {
      const { inside } = network.machines[rank < 2 ? 0 : 1];
      const place = torchrunVariables(rank, network.machines[0].address, port);
      return start([...inside, ...command], { env: { ...env, ...place } });
    });
    const codes = (await Promise.all(runs.map(({ ended }) => ended))).map(({ code }) => code);
    assert.deepEqual(codes, [0, 0, 0, 0], runs.map((run) => run.err()).join("\n"));
    for (const [i, value] of curve(`stage ${stage}`).entries()) {
      const distance = Math.abs(value - expected[i]!);
      // f32 sums in another order.
      assert.ok(distance <= 1e-4 * Math.abs(expected[i]!) + 1e-6, `stage ${stage}, ${i}: ${value}`);
    }
  }
});
