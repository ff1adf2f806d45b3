import assert from "node:assert/strict";
import { test } from "node:test";
import type { FlatSpec, ZeroStage } from "#src/parallel/layout.js";
import { sentBytes, stepVolume, type VolumeOptions } from "#src/parallel/volume.js";
import { StepWalk } from "#src/parallel/walk.js";

/** L layers of ragged sizes and an edge. */
function blocks(layers: number): FlatSpec[] {
  const spec = (name: string, sizes: number[]): FlatSpec => ({
    name,
    parameters: sizes.map((size, i) => ({ name: `p${i}`, shape: [size], decay: i === 0 })),
  });
  const layer = (_: unknown, l: number) => spec(`layer ${l}`, [1000 + 77 * l, 33]);
  return [...Array.from({ length: layers }, layer), spec("edge", [5001, 7])];
}

/** Elements of a block after padding, by hand: parameters to 32 elements, the sum to 32 · R. */
function padded({ parameters }: FlatSpec, size: number): number {
  const up = (n: number, unit: number) => Math.ceil(n / unit) * unit;
  const sum = parameters.reduce((all, { shape }) => all + up(shape[0]!, 32), 0);
  return up(sum, 32 * size);
}

const stages: ZeroStage[] = [0, 1, 2, 3];

function options(stage: ZeroStage, size: number, layers: number, slots: number): VolumeOptions {
  const common = { normPartials: 64 * (layers + 1), responses: 24, dtype: "bf16" } as const;
  return { ...common, stage, size, slots, blocks: blocks(layers) };
}

/**
 * Bytes of a step by the formulas of the store's documentation: which blocks are exchanged how often, times what a
 * rank sends of a block.
 */
function byHand({ stage, size, slots, blocks, normPartials, responses }: VolumeOptions) {
  const n = blocks.map((block) => padded(block, size));
  const edge = n.at(-1)!;
  const layers = n.slice(0, -1);
  const sum = (counts: readonly number[]) => counts.reduce((a, b) => a + b, 0);
  const all = layers.length;
  // Gathered in stage 3: layers 0 and 1 once, the two at the turn of a walk not again.
  const inside = layers.filter((_, l) => l >= 2);
  const turning = layers.filter((_, l) => l < all - 2);
  const gatheredLayers =
    all > 2
      ? sum(layers.slice(0, 2)) + slots * (sum(inside) + sum(turning))
      : sum(layers.slice(0, 2));
  const others = (size - 1) / size;
  const last = (count: number) => {
    const own = Math.ceil(count / size);
    return 4 * (count - own + (size - 1) * own);
  };
  const results = last(responses) + last(responses + 1);
  const whole = 2 * others * 4 * sum(n);
  return {
    all_reduce: results + (stage === 0 ? whole : last(normPartials)),
    reduce_scatter: stage === 0 ? 0 : others * 4 * ((stage === 1 ? 1 : slots) * sum(layers) + edge),
    all_gather:
      stage === 0 ? 0 : others * 2 * (edge + (stage === 3 ? gatheredLayers : sum(layers))),
  };
}

test("volume: what a rank sends in a step, in every stage", () => {
  for (const stage of stages) {
    for (const size of [2, 3, 4, 8]) {
      for (const layers of [1, 2, 3, 4, 7]) {
        for (const slots of [1, 2, 5]) {
          const given = options(stage, size, layers, slots);
          const got = Object.fromEntries(stepVolume(given).map(({ op, bytes }) => [op, bytes]));
          const want = Object.fromEntries(
            Object.entries(byHand(given)).filter(([, bytes]) => bytes > 0),
          );
          assert.deepEqual(
            Object.entries(got).sort(),
            Object.entries(want).sort(),
            JSON.stringify({ stage, size, layers, slots }),
          );
        }
      }
    }
  }
});

test("volume: an all-reduce has all ranks send each part once to sum and once to share", () => {
  for (const [count, size] of [
    [10, 4],
    [3, 4],
    [17, 3],
  ] as const) {
    const sent = Array.from({ length: size }, (_, r) =>
      sentBytes("all_reduce", 4 * count, size, r),
    );
    assert.equal(
      sent.reduce((a, b) => a + b, 0),
      2 * (size - 1) * count * 4,
    );
    assert.equal(Math.max(...sent), sent.at(-1), "the last rank has the largest part");
  }
});

test("volume: one process sends nothing", () => {
  for (const stage of stages) assert.deepEqual(stepVolume(options(stage, 1, 3, 2)), []);
});

test("volume: accumulation costs exchanges in stages 2 and 3 only, and fewer than a walk has layers", () => {
  const bytes = (stage: ZeroStage, slots: number) =>
    stepVolume(options(stage, 4, 6, slots)).reduce((sum, volume) => sum + volume.bytes, 0);
  assert.equal(bytes(0, 8), bytes(0, 1));
  assert.equal(bytes(1, 8), bytes(1, 1));
  assert.ok(bytes(2, 8) > bytes(2, 1));
  const whole =
    2 *
    (3 / 4) *
    blocks(6)
      .slice(0, -1)
      .reduce((sum, b) => sum + padded(b, 4), 0);
  const gathers = (slots: number) =>
    stepVolume(options(3, 4, 6, slots)).find(({ op }) => op === "all_gather")!.bytes;
  assert.ok(gathers(8) - gathers(7) < 2 * whole);
});

test("walk: an entry waits for entries before it, on the other stream", () => {
  for (const stage of stages) {
    const walk = new StepWalk({ stage, size: 4, layers: 5, slots: 3 });
    for (let step = 0; step < 3; step++) walk.step();
    let waits = 0;
    for (const [i, { stream, after }] of walk.tasks.entries()) {
      for (const before of after) {
        waits++;
        assert.ok(before < i);
        if (walk.tasks[before]!.stream === stream) assert.equal(stream, "comm");
      }
    }
    assert.ok(waits > 20);
  }
});
