import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { ncclDevice, ncclEnvironment, noNccl, refusesToShare } from "../support/nccl.js";
import { root } from "../support/paths.js";
import { outputOf, temporaryFolder, trajectory, weightBytes } from "../train/support.js";
import { createNetwork } from "./netns.js";
import { freePort, start, torchrunVariables } from "./support.js";

// How ranks with a GPU each meet: over TCP at MASTER_ADDR:MASTER_PORT, and then by NCCL. On the emulated device, whose
// NCCL is made for tests, two of the four ranks are on another machine.

const program = path.join(root, "dist-test", "train", "rank.js");
const network = noNccl === false && ncclDevice === "emulated" ? createNetwork() : undefined;
after(() => network?.remove());
const skip = noNccl || (network?.skip ?? false);

const RANKS = 4;

/** Words before the command of a rank. */
function placeOf(rank: number): readonly string[] {
  return network?.machines[rank < 2 ? 0 : 1].inside ?? [];
}

for (const stage of [0, 1, 2, 3] as const) {
  test(`nccl: ${RANKS} ranks that meet over TCP follow one process, with the same bits twice, in zero_stage ${stage}`, {
    skip,
  }, async (t) => {
    const folder = temporaryFolder(t);
    const env = {
      ...ncclEnvironment,
      SIMPER_NATIVE_BINDING: process.env.SIMPER_NATIVE_BINDING!,
      SIMPER_RUN_TOKEN: "a secret of the tests",
      SIMPER_TEST_REPORTS: folder,
      OMP_NUM_THREADS: "1",
    };
    const command = (name: string, ranks: number): string[] => {
      const share = { perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 8 / ranks };
      const outputDir = path.join(folder, name);
      const recipe = { ...trajectory({ maxSteps: 3, zeroStage: stage, ...share }), outputDir };
      const file = path.join(folder, `${name}.json`);
      writeFileSync(file, JSON.stringify({ recipe, device: ncclDevice }));
      return [process.execPath, program, file];
    };
    const curve = (name: string): number[] =>
      outputOf(path.join(folder, name)).steps.flatMap(({ loss, grad_norm }) => [loss!, grad_norm!]);
    const master = network?.machines[0].address ?? "127.0.0.1";

    const one = start(command("alone", 1), { env });
    assert.equal((await one.ended).code, 0, one.err());
    const expected = curve("alone");
    assert.equal(expected.length, 6);
    for (const name of ["together", "again"]) {
      const words = command(name, RANKS);
      const port = await freePort();
      const runs = Array.from({ length: RANKS }, (_, rank) => {
        const variables = torchrunVariables(rank, master, port);
        return start([...placeOf(rank), ...words], { env: { ...env, ...variables } });
      });
      const codes = (await Promise.all(runs.map(({ ended }) => ended))).map(({ code }) => code);
      const said = runs.map((run) => run.err()).join("\n");
      if (refusesToShare(said)) return t.skip("this NCCL does not let ranks share a GPU");
      assert.deepEqual(codes, [0, 0, 0, 0], said);
      for (const [i, value] of curve(name).entries()) {
        const distance = Math.abs(value - expected[i]!);
        // f32 sums in another order.
        assert.ok(distance <= 1e-4 * Math.abs(expected[i]!) + 1e-6, `value ${i}: ${value}`);
      }
    }
    const [first, second] = ["together", "again"].map((name) => path.join(folder, name));
    assert.deepEqual(curve("again"), curve("together"));
    assert.ok(weightBytes(second!).equals(weightBytes(first!)));
  });
}
