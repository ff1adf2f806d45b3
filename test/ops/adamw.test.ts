import assert from "node:assert/strict";
import { test } from "node:test";
import { openRig, TEST_DEVICES } from "./harness/devices.js";
import { encode, rounded } from "./harness/dtype.js";
import { Random, testSeed } from "./harness/random.js";
import { mismatch } from "./harness/tolerance.js";
import { adamw } from "./reference/adamw.js";

const N = 333;
const STEPS = 1000;
const BLOCKS = 8;
const MAX_NORM = 15;

// Each step rounds the f32 master once, by at most 6e-8 of it: a walk of 1000 such roundings is 2e-6 long,
// and an error of m or v moves the update by a relative 1e-6 at most. A wrong bias correction, decay or
// clip factor is off by 1e-3 and more.
const TOLERANCE = { relative: 1e-5 };

for (const deviceName of TEST_DEVICES) {
  for (const dtype of ["f32", "bf16"] as const) {
    test(`${deviceName}: adamw: ${STEPS} clipped and decayed steps of a ${dtype} weight follow float64`, async () => {
      using rig = openRig(deviceName);
      const { device, stream } = rig;
      const random = new Random(`adamw ${dtype}`);
      const normals = () => Float64Array.from({ length: N }, () => random.normal());
      const arena = device.arena(2 ** 16, "adamw");
      const [master, m, v, grad] = [0, 1, 2, 3].map(() => arena.tensor("f32", [N]));
      const weight = arena.tensor(dtype, [N]);
      const clip = arena.tensor("f32", [2]);
      const partials = arena.tensor("f32", [BLOCKS]);

      const state = {
        master: rounded("f32", normals()),
        m: new Float64Array(N),
        v: new Float64Array(N),
      };
      stream.write(master!, encode("f32", state.master));
      for (let step = 1; step <= STEPS; step++) {
        const g = rounded(
          "f32",
          normals().map((x, i) => x * (1 + Math.sin(i + step / 50))),
        );
        const settings = {
          lr: 1e-3 * (1 - step / (2 * STEPS)),
          beta1: 0.9,
          beta2: 0.999,
          eps: 1e-8,
          weightDecay: 0.1,
          step,
        };
        stream.write(grad!, encode("f32", g));
        stream.sumSquares(partials, grad!);
        stream.clipFactor(clip, partials, MAX_NORM);
        const { lr, beta1, beta2, eps, weightDecay } = settings;
        stream.adamw(
          weight,
          master!,
          m!,
          v!,
          grad!,
          clip,
          lr,
          beta1,
          beta2,
          eps,
          weightDecay,
          step,
        );
        const norm = Math.sqrt(g.reduce((sum, x) => sum + x * x, 0));
        adamw(state, g, Math.min(1, MAX_NORM / (norm + 1e-6)), settings);
        if (step !== 1 && step !== 10 && step !== STEPS) continue;
        const found = {
          master: await stream.read(master!),
          m: await stream.read(m!),
          v: await stream.read(v!),
        };
        for (const name of ["master", "m", "v"] as const) {
          const wrong = mismatch(found[name], state[name], TOLERANCE);
          assert.equal(
            wrong,
            undefined,
            `step ${step}, ${name}: ${wrong}, SIMPER_TEST_SEED=${testSeed}`,
          );
        }
        // The weight is the master, rounded: bit for bit.
        assert.deepEqual(await stream.read(weight), encode(dtype, found.master));
      }
      arena.dispose();
    });
  }

  test(`${deviceName}: adamw: a gradient that is not finite clips to no step at all`, async () => {
    using rig = openRig(deviceName);
    const { device, stream } = rig;
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 3e38]) {
      for (const maxNorm of [0, 1]) {
        using arena = device.arena(2 ** 12, "adamw");
        const [weight, m, v, grad] = [0, 1, 2, 3].map(() => arena.tensor("f32", [20]));
        const [clip, partials] = [arena.tensor("f32", [2]), arena.tensor("f32", [3])];
        stream.fill(weight!, 2);
        stream.fill(grad!, 1);
        stream.write(grad!.slice(7, 8), Float32Array.of(bad)); // 3e38² overflows to infinity
        stream.sumSquares(partials, grad!);
        stream.clipFactor(clip, partials, maxNorm);
        stream.adamw(weight!, weight!, m!, v!, grad!, clip, 1, 0.9, 0.999, 1e-8, 0.1, 1);
        const [norm] = await stream.read(clip);
        assert.ok(!Number.isFinite(norm), `norm ${norm} of a gradient with ${bad}`);
        assert.deepEqual(await stream.read(weight!), new Float32Array(20).fill(2));
        assert.deepEqual(await stream.read(m!), new Float32Array(20));
        assert.deepEqual(await stream.read(v!), new Float32Array(20));
      }
    }
  });
}
