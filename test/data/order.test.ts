import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createOrder,
  epochOrder,
  random32,
  stepCount,
  stepPosition,
  stepsPerEpoch,
} from "#src/data/order.js";

const options = { count: 10, perStep: 4, shuffle: true, seed: 42 };

test("order: without shuffling it is the files' order", () => {
  assert.deepEqual(
    Array.from(epochOrder({ ...options, shuffle: false }, 3)),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
});

test("order: each epoch is a permutation of its own, fixed by seed and epoch for good", () => {
  const orders = [0, 1, 2].map((epoch) => Array.from(epochOrder(options, epoch)));
  for (const order of orders) {
    assert.deepEqual(
      [...order].sort((a, b) => a - b),
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
  }
  assert.notDeepEqual(orders[0], orders[1]);
  assert.notDeepEqual(orders[1], orders[2]);
  assert.notDeepEqual(orders[0], Array.from(epochOrder({ ...options, seed: 43 }, 0)));
  const high = Array.from(epochOrder({ ...options, seed: 42 + 2 ** 32 }, 0));
  assert.notDeepEqual(orders[0], high);
  // Written down once: a change here breaks the resumption of every run.
  assert.deepEqual(orders[0], [0, 7, 6, 1, 4, 2, 9, 8, 3, 5]);
});

test("order: random32 gives uniform 32-bit integers", () => {
  const next = random32(1, 2);
  const values = Array.from({ length: 20000 }, next);
  assert.ok(values.every((value) => Number.isInteger(value) && value >= 0 && value < 2 ** 32));
  const mean = values.reduce((a, b) => a + b, 0) / values.length / 2 ** 32;
  assert.ok(Math.abs(mean - 0.5) < 0.01, `mean ${mean}`); // sd of the mean is 0.002
});

test("order: every place is equally likely", () => {
  // 20000 permutations of 5: each (place, value) is seen 4000 times, sd 57.
  const seen = Array.from({ length: 5 }, () => new Array<number>(5).fill(0));
  for (let epoch = 0; epoch < 20000; epoch++) {
    const order = epochOrder({ count: 5, perStep: 1, shuffle: true, seed: 7 }, epoch);
    for (const [place, value] of order.entries()) (seen[place] as number[])[value]! += 1;
  }
  for (const count of seen.flat()) assert.ok(Math.abs(count - 4000) < 300, `${count}`);
});

test("order: an epoch has ceil(pairs / perStep) steps, the last holds what remains", () => {
  assert.equal(stepsPerEpoch(options), 3);
  assert.deepEqual(stepPosition(options, 2), {
    epoch: 0,
    stepInEpoch: 2,
    begin: 8,
    end: 10,
    epochsDone: 1,
  });
  assert.deepEqual(stepPosition(options, 3), {
    epoch: 1,
    stepInEpoch: 0,
    begin: 0,
    end: 4,
    epochsDone: 1 + 1 / 3,
  });
});

test("order: the steps of an epoch take every pair once, from any step on", () => {
  const order = createOrder(options);
  const first = [0, 1, 2].flatMap((step) => Array.from(order(step)));
  assert.deepEqual(first, Array.from(epochOrder(options, 0)));
  const resumed = createOrder(options);
  assert.deepEqual(resumed(4), order(4));
  assert.deepEqual(resumed(1), order(1));
});

test("order: steps of a run are those of Hugging Face's Trainer", () => {
  assert.equal(stepCount(options, { numTrainEpochs: 2 }), 6);
  assert.equal(stepCount(options, { numTrainEpochs: 0.5 }), 2); // ceil(1.5)
  assert.equal(stepCount(options, { numTrainEpochs: 1, maxSteps: 100 }), 100);
  assert.equal(stepCount(options, { numTrainEpochs: 1, maxSteps: -1 }), 3);
  assert.equal(stepCount({ count: 61135, perStep: 128 }, { numTrainEpochs: 1 }), 478);
});
