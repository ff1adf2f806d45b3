// One rank of test/parallel/store.test.ts: trains blocks of random gradients in a sharded store and in a resident
// one that is given the gradients of all ranks, and compares the two bit for bit.
//
// Gradients are multiples of 1/8 and small, so that all sums over them and over their squares are exact in f32 and do
// not depend on their order: what differs is wrong. All memory is NaN before the store writes to it.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type Arena,
  Communicator,
  type DeviceName,
  type DType,
  openDevice,
  type Stream,
  type Tensor,
} from "#src/native/index.js";
import { AdamW, NORM_PARTIALS } from "#src/optim/adamw.js";
import { openHostState } from "#src/parallel/host-state.js";
import {
  type FlatSpec,
  flatElements,
  shardedElements,
  storeBytes,
  type ZeroStage,
} from "#src/parallel/layout.js";
import { ResidentStore } from "#src/parallel/resident.js";
import { ShardedStore } from "#src/parallel/sharded.js";
import type { ModelStore, ParamStore } from "#src/parallel/store.js";

/** What a store is asked to do. */
interface Case {
  readonly stage: ZeroStage;
  readonly dtype: DType;
  /** Shapes of the blocks' parameters; vectors have no weight decay. The last block is the edge. */
  readonly blocks: readonly (readonly (readonly number[])[])[];
  readonly slots: number;
  readonly offload: boolean;
}

const STEPS = 3;
const OPTIONS = {
  adamBeta1: 0.9,
  adamBeta2: 0.99,
  adamEpsilon: 1e-8,
  weightDecay: 0.1,
  maxGradNorm: 1,
};

const models = {
  // The boundary of weight decay lies inside a part for every number of ranks; layers differ in size.
  ragged: [
    [[7, 33], [5, 9], [13]],
    [[3, 5], [70]],
    [[40, 41], [3]],
    [[1, 1], [1]],
    [[11, 17], [11, 17], [17]],
  ],
  oneLayer: [
    [[9, 31], [65]],
    [[13, 7], [7]],
  ],
  twoLayers: [[[8, 8], [8]], [[64, 3]], [[50, 2], [2]]],
  onlyVectors: [[[33]], [[100], [1]], [[31]]],
} as const;

const cases: Case[] = [];
for (const stage of [0, 1, 2, 3] as const) {
  for (const dtype of ["f32", "bf16"] as const) {
    for (const offload of [false, true]) {
      cases.push({ stage, dtype, blocks: models.ragged, slots: 3, offload });
      cases.push({ stage, dtype, blocks: models.ragged, slots: 1, offload });
    }
    cases.push({ stage, dtype, blocks: models.oneLayer, slots: 2, offload: false });
    cases.push({ stage, dtype, blocks: models.twoLayers, slots: 2, offload: false });
    cases.push({ stage, dtype, blocks: models.onlyVectors, slots: 2, offload: false });
  }
}

const device = openDevice((process.env.SIMPER_STORE_DEVICE ?? "cpu") as DeviceName, { threads: 1 });
const commStream = device.stream();
const comm = await Communicator.open(commStream, { engine: "mpi", timeoutSeconds: 120 });
const fabric = { comm, stream: commStream };
let checked = 0;
async function check({ stage, dtype, blocks, slots, offload }: Case, seed: number): Promise<void> {
  const specs = blocks.map((shapes, b) => flatSpec(`block ${b}`, shapes));
  const stream = device.stream();
  const poisoned = (bytes: number, name: string) => poison(device.arena(bytes, name), stream);
  const { size } = comm;
  const lines = storeBytes(specs, dtype, { stage, size, training: true, offload });
  const bytes = (ofHost: boolean) =>
    lines.filter(({ host }) => host === ofHost).reduce((sum, line) => sum + line.bytes, 0);
  const parts = stage === 0 ? 1 : size;
  const largest = Math.max(...specs.map((spec) => shardedElements(spec, size) / parts));
  const host = offload ? openHostState(lines, largest, dtype, 1) : undefined;
  const arena = poisoned(bytes(false), "sharded");
  const store = new ShardedStore({ device, stream, fabric, stage, specs, dtype, arena, host });
  assert.equal(arena.used, bytes(false), "the arena is what storeBytes says");

  const all = { stage: 0, size: 1, training: true, offload: false } as const;
  const whole = storeBytes(specs, dtype, all).reduce((sum, line) => sum + line.bytes, 0);
  const resident = new ResidentStore(stream, poisoned(whole, "resident"), specs, dtype, true);
  const scratch = device.arena(1 << 20, "scratch");
  const optimizer = (of: ModelStore) =>
    new AdamW(
      of.blocks,
      OPTIONS,
      scratch.tensor("f32", [2]),
      scratch.tensor("f32", [specs.length * NORM_PARTIALS]),
      of,
    );
  const adding = new Adding(stream, scratch, specs);
  const [noise, zeros] = [scratch.tensor("f32", [64, 64]), scratch.tensor("f32", [64, 64])];
  const runs = [
    { store: store as ModelStore, optimizer: optimizer(store) },
    { store: resident as ModelStore, optimizer: optimizer(resident) },
  ] as const;
  for (const { store: one } of runs) await load(one, specs, seed);
  await compareWeights(store, resident, stream, specs);

  const random = numbers(1000 * seed + comm.rank + 7);
  /** What keeps this rank from being where the others are. */
  const disturb = async () => {
    for (let i = Math.floor(random() * 20); i > 0; i--) stream.matmul(noise, zeros, zeros, "nn");
    if (random() < 0.2) await sleep(Math.floor(random() * 10));
  };
  for (let step = 1; step <= STEPS; step++) {
    if (step === 2) walkUp(store, specs.length - 1, () => {}); // an evaluation
    for (const { store: one, optimizer: update } of runs) {
      one.beginStep();
      for (let slot = 0; slot < slots; slot++) {
        one.beginPass(slot === slots - 1);
        const ranks = one === resident ? Array.from({ length: size }, (_, r) => r) : [comm.rank];
        walkUp(one, specs.length - 1, () => {});
        await disturb();
        walkDown(one, specs.length - 1, (block) => {
          for (const rank of ranks) {
            if ((rank + slot + step) % 4 === 3) continue; // this rank has nothing to compute
            adding.add(one.gradients(block), block, [seed, step, slot, rank]);
          }
        });
      }
      await update.step(stream, step, 0.01);
    }
    if (step === 2) continue; // whose weights nobody looks at but the next walk
    const [ours, theirs] = [store, resident].map((one) =>
      specs.map((_, b) => stream.read(one.blocks[b]!.grad)),
    );
    for (const [b, { held }] of store.layouts.entries()) {
      const n = flatElements(specs[b]!);
      const expected = (await theirs![b]!).slice(held.begin, Math.min(held.end, n));
      const sums = await ours![b]!;
      same(sums.subarray(0, expected.length), expected, `gradient ${b} of step ${step}`);
      assert.ok(
        sums.subarray(expected.length).every((x) => x === 0),
        `padding of gradient ${b}`,
      );
    }
    const [norm, wanted] = await Promise.all(runs.map((run) => stream.read(run.optimizer.clip)));
    same(norm!, wanted!, `norm and factor of step ${step}`);
    await compareWeights(store, resident, stream, specs);
    await compareMasters(store, resident, stream, specs);
  }
  host?.dispose();
  store.dispose();
  stream.dispose();
  for (const used of [arena, scratch]) used.dispose();
}

/** An arena whose tensors hold NaN. */
function poison(arena: Arena, stream: Stream): Arena {
  const tensor = arena.tensor.bind(arena);
  arena.tensor = (dtype, shape) => {
    const made = tensor(dtype, shape);
    if (made.size > 0) stream.fill(made, Number.NaN);
    return made;
  };
  return arena;
}

function flatSpec(name: string, shapes: readonly (readonly number[])[]): FlatSpec {
  const parameters = shapes.map((shape, i) => ({ name: `p${i}`, shape, decay: shape.length > 1 }));
  return { name, parameters };
}

/** Numbers in [0, 1), by a seed. [L'Ecuyer 1999] */
function numbers(seed: number): () => number {
  let state = Math.imul(seed + 1, 2654435761) >>> 0 || 1;
  const next = () => {
    state = Number((BigInt(state) * 279470273n) % 4294967291n);
    return state / 4294967291;
  };
  for (let i = 0; i < 8; i++) next();
  return next;
}

/** Fills masters with the same numbers on every rank, moments with zeros, as a checkpoint is loaded. */
async function load(store: ModelStore, specs: readonly FlatSpec[], seed: number): Promise<void> {
  for (const [b, layout] of store.layouts.entries()) {
    const random = numbers(100 * seed + b);
    const flat = new Float32Array(layout.elements);
    flat.subarray(0, flatElements(specs[b]!)).forEach((_, i) => {
      flat[i] = random() - 0.5;
    });
    const { begin, end } = layout.held;
    store.stateStream.write(store.shard("master", b), flat.subarray(begin, end));
    for (const kind of ["m", "v"] as const) store.stateStream.fill(store.shard(kind, b), 0);
  }
  await store.shareWeights();
}

/** Adds random gradients by an op, so that the stream runs ahead as it does in training. */
class Adding {
  readonly #stream: Stream;
  readonly #values: Tensor[][];
  readonly #one: Tensor;
  readonly #views = new Map<Tensor, Tensor>();

  constructor(stream: Stream, arena: Arena, specs: readonly FlatSpec[]) {
    this.#stream = stream;
    this.#one = arena.tensor("f32", [1, 1]);
    stream.fill(this.#one, 1);
    this.#values = specs.map(({ parameters }) =>
      parameters.map(({ shape }) => arena.tensor("f32", [1, shape.reduce((a, b) => a * b)])),
    );
  }

  add(gradients: Readonly<Record<string, Tensor>>, block: number, seed: readonly number[]): void {
    const random = numbers(seed.reduce((sum, x) => 31 * sum + x, block));
    this.#values[block]!.forEach((values, p) => {
      const host = Float32Array.from(
        { length: values.size },
        () => Math.floor(random() * 9 - 4) / 8,
      );
      const gradient = gradients[`p${p}`]!;
      let column = this.#views.get(gradient);
      if (!column) {
        column = gradient.view([gradient.size, 1]);
        this.#views.set(gradient, column);
      }
      this.#stream.write(values, host);
      this.#stream.matmulAdd(column, values, this.#one, "tn");
    });
  }
}

// The calls of src/train/pass.ts.
function walkUp(store: ParamStore, edge: number, use: (block: number, w: Weights) => void): void {
  use(edge, store.acquire(edge));
  store.prefetch(0);
  for (let l = 0; l < edge; l++) {
    if (l + 1 < edge) store.prefetch(l + 1);
    use(l, store.acquire(l));
    store.release(l);
  }
  store.acquire(edge);
}

function walkDown(store: ParamStore, edge: number, add: (block: number) => void): void {
  store.gradients(edge);
  add(edge);
  for (let l = edge - 1; l >= 0; l--) {
    if (l > 0) store.prefetch(l - 1);
    store.acquire(l);
    store.gradients(l);
    add(l);
    store.release(l);
    store.reduce(l);
  }
  store.reduce(edge);
}

type Weights = Readonly<Record<string, Tensor>>;

/** Every rank computes with the weights of one process. */
async function compareWeights(
  store: ModelStore,
  resident: ModelStore,
  stream: Stream,
  specs: readonly FlatSpec[],
): Promise<void> {
  const reads: [string, Promise<ArrayLike<number>>, Promise<ArrayLike<number>>][] = [];
  walkUp(store, specs.length - 1, (block, weights) => {
    const expected = resident.acquire(block);
    for (const [name, tensor] of Object.entries(weights)) {
      reads.push([`weight ${block} ${name}`, stream.read(tensor), stream.read(expected[name]!)]);
    }
  });
  for (const [what, ours, theirs] of reads) same(await ours, await theirs, what);
}

async function compareMasters(
  store: ModelStore,
  resident: ModelStore,
  stream: Stream,
  specs: readonly FlatSpec[],
): Promise<void> {
  for (const [b] of specs.entries()) {
    const [ours, theirs] = [await store.gatherMasters(b), await resident.gatherMasters(b)];
    for (const [name, tensor] of Object.entries(ours)) {
      same(await stream.read(tensor), await stream.read(theirs[name]!), `master ${b} ${name}`);
    }
  }
}

function same(ours: ArrayLike<number>, theirs: ArrayLike<number>, what: string): void {
  checked++;
  assert.equal(ours.length, theirs.length, what);
  for (let i = 0; i < ours.length; i++) {
    if (ours[i] !== theirs[i] || Number.isNaN(ours[i])) {
      assert.fail(`${what}: element ${i} is ${ours[i]}, expected ${theirs[i]}`);
    }
  }
}

for (const [index, wanted] of cases.entries()) {
  try {
    await check(wanted, index);
  } catch (error) {
    const { blocks, ...rest } = wanted;
    const what = JSON.stringify({
      rank: comm.rank,
      size: comm.size,
      layers: blocks.length - 1,
      ...rest,
    });
    console.error(`${what}: ${error instanceof Error ? error.stack : String(error)}`);
    process.exit(1);
  }
}
await comm.close();
commStream.dispose();
device.dispose();
console.log(`rank ${comm.rank}: ${cases.length} cases, ${checked} tensors`);
