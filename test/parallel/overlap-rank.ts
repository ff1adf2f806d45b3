// One rank of test/parallel/overlap.test.ts. Rank 1 holds an exchange back until rank 0 says that its walk got past
// it: were the walk to wait for the exchange, neither would ever go on. No clock decides anything.
import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Communicator, openDevice } from "#src/native/index.js";
import { AdamW, NORM_PARTIALS } from "#src/optim/adamw.js";
import { type FlatSpec, storeBytes, type ZeroStage } from "#src/parallel/layout.js";
import { ShardedStore } from "#src/parallel/sharded.js";

const LAYERS = 5;
const EDGE = LAYERS;
const folder = process.argv[2]!;
const specs: FlatSpec[] = Array.from({ length: LAYERS + 1 }, (_, b) => ({
  name: `block ${b}`,
  parameters: [{ name: "w", shape: [60, 70], decay: true }],
}));
const device = openDevice("cpu", { threads: 1 });
const commStream = device.stream();
const comm = await Communicator.open(commStream, { engine: "mpi", timeoutSeconds: 60 });
const first = comm.rank === 0;

/** Exchanges of one kind that have run here. */
const done = (op: string) => comm.counters().find((counter) => counter.op === op)?.calls ?? 0;

/** Rank 1: until rank 0 has called {@link pass} with this name. */
async function held(name: string): Promise<void> {
  while (!first && !existsSync(path.join(folder, name))) await sleep(5);
}

function pass(name: string): void {
  if (first) writeFileSync(path.join(folder, name), "");
}

for (const stage of [0, 1, 2, 3] as const) await overlap(stage);
await comm.close();
console.log(`rank ${comm.rank}: all stages`);

async function overlap(stage: ZeroStage): Promise<void> {
  const stream = device.stream();
  const lines = storeBytes(specs, "f32", { stage, size: 2, training: true, offload: false });
  const arena = device.arena(
    lines.reduce((sum, { bytes }) => sum + bytes, 0),
    "store",
  );
  const fabric = { comm, stream: commStream };
  const dtype = "f32";
  const store = new ShardedStore({ device, stream, fabric, stage, specs, dtype, arena });
  const scratch = device.arena(8192, "scratch");
  const options = { adamBeta1: 0.9, adamBeta2: 0.99, adamEpsilon: 1e-8 };
  const optimizer = new AdamW(
    store.blocks,
    { ...options, weightDecay: 0, maxGradNorm: 1 },
    scratch.tensor("f32", [2]),
    scratch.tensor("f32", [specs.length * NORM_PARTIALS]),
    store,
  );
  await store.shareWeights();

  // The forward walk computes with layer 1 while layer 2 is gathered.
  const gathered = () => done("all_gather");
  store.acquire(EDGE);
  store.prefetch(0);
  store.prefetch(1);
  store.acquire(0);
  store.release(0);
  await commStream.done();
  const before = gathered();
  await held(`forward-${stage}`);
  store.prefetch(2);
  store.acquire(1);
  await stream.done();
  if (first) assert.equal(gathered(), before, "layer 2 is still to come");
  pass(`forward-${stage}`);
  store.release(1);
  for (let l = 2; l < LAYERS; l++) {
    if (l + 1 < LAYERS) store.prefetch(l + 1);
    store.acquire(l);
    store.release(l);
  }
  await Promise.all([stream.done(), commStream.done()]);
  if (stage === 3) assert.ok(gathered() > before);

  // The backward walk computes the gradients of layer l − 1 while those of l are summed.
  const sums = stage === 0 ? "all_reduce" : "reduce_scatter";
  store.beginStep();
  store.beginPass(true);
  store.gradients(EDGE);
  let summed = 0;
  for (let l = LAYERS - 1; l >= 0; l--) {
    if (l > 0) store.prefetch(l - 1);
    store.acquire(l);
    if (l === 2) {
      await Promise.all([stream.done(), commStream.done()]); // the sum of layer 2 is the next exchange
      summed = done(sums);
      await held(`backward-${stage}`);
    }
    stream.fill(store.gradients(l).w!, 1);
    if (l === 1) {
      await stream.done();
      if (first)
        assert.equal(done(sums), summed, "the gradients of layer 2 are still to be summed");
      pass(`backward-${stage}`);
    }
    store.release(l);
    store.reduce(l);
  }
  store.reduce(EDGE);

  // The update goes on while weights are gathered.
  await Promise.all([stream.done(), commStream.done()]);
  if (stage > 0) {
    const before = gathered();
    const updated = store.updated.bind(store);
    const kept: number[] = [];
    // Rank 1 makes its updates known only when rank 0 has made all of its own.
    store.updated = (block) => (first ? updated(block) : void kept.push(block));
    optimizer.step(stream, 1, 0.1);
    await stream.done();
    if (first) assert.equal(gathered(), before, "no weights came yet");
    await held(`update-${stage}`);
    pass(`update-${stage}`);
    for (const block of kept) updated(block);
    store.updated = updated;
    store.acquire(EDGE);
    await stream.done();
    assert.ok(gathered() > before);
  }
  await Promise.all([stream.done(), commStream.done()]);
  store.dispose();
  stream.dispose();
  for (const used of [arena, scratch]) used.dispose();
}
