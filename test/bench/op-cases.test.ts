import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { openDevice } from "#src/native/index.js";
import { root } from "../support/paths.js";
import { benchModule } from "./modules.js";

const { opBenches } = await benchModule("op-cases.mjs");
const { timeBench, createRoofs } = await benchModule("time-ops.mjs");
const { makePairs } = await benchModule("pairs.mjs");
const { models } = await benchModule("models.mjs");
const tiny = models.tiny!;

/** Ops of a few microseconds on a few numbers: there is no roof to hold them against. */
const LOSSES = ["simper_loss", "sft_loss", "simper_sft_loss", "sigmoid_loss", "hinge_loss"];
const SMALL = [...LOSSES, "clip_factor"];

test("bench ops: every op of the table that moves data has a case", () => {
  const table = readFileSync(path.join(root, "native/ops/ops.def"), "utf8");
  const ops = [...table.matchAll(/^OP\((\w+)/gm)].map((match) => match[1]!);
  const cases = new Set(opBenches(tiny, makePairs(tiny, 4, 1)).map(({ op }) => op));
  assert.deepEqual(
    ops.filter((op) => !cases.has(op) && !SMALL.includes(op)),
    [],
    "give these ops a case in bench/lib/op-cases.mjs",
  );
});

test("bench ops: every case runs, in both types, and takes time", async () => {
  const device = openDevice("cpu", { threads: 1 });
  try {
    for (const dtype of ["f32", "bf16"] as const) {
      for (const bench of opBenches({ ...tiny, dtype }, makePairs(tiny, 4, 1))) {
        const seconds = await timeBench(device, bench, { least: 2, budget: 0 });
        assert.equal(seconds.length, 2, bench.op);
        assert.ok(
          seconds.every((s) => s > 0 && s < 5),
          `${bench.op} ${bench.sizes}: ${seconds}`,
        );
        assert.ok(bench.bytes > 0, bench.op);
      }
    }
  } finally {
    device.dispose();
  }
});

test("bench ops: a roof is positive, never falls, and is no lower for a smaller working set", async () => {
  const device = openDevice("cpu", { threads: 1 });
  try {
    const roofs = createRoofs(device, "f32", [1 << 16, 1 << 20], 1 << 22);
    await roofs.measure();
    assert.ok(roofs.flops > 0);
    assert.ok(roofs.bytesPerSecond(1 << 16) >= roofs.bytesPerSecond(1 << 22));
    assert.ok(roofs.bytesPerSecond(1 << 22) > 0);
    const { flops } = roofs;
    roofs.raiseFlops(flops / 2);
    assert.equal(roofs.flops, flops);
    roofs.raiseFlops(2 * flops);
    assert.equal(roofs.flops, 2 * flops);
  } finally {
    device.dispose();
  }
});
