// A rank of comm-mpi.test.ts: every collective on fresh random tensors of ragged sizes, apart and in place,
// into poisoned outputs. Each rank can draw what the others hold, and compares bits.
// Arguments: engine, device, seed.
import { createHash } from "node:crypto";
import {
  type CommEngine,
  Communicator,
  type DeviceName,
  type DType,
  type HostArray,
  hostArray,
  ncclUniqueId,
  openDevice,
  type Tensor,
} from "#src/native/index.js";
import { report } from "../../support/ranks.js";
import { uniqueIdOfRankZero } from "./rendezvous.js";

const [engine, deviceName, seedText] = process.argv.slice(2) as [CommEngine, DeviceName, string];
const seed = Number(seedText);

const device = openDevice(deviceName, { threads: 1 });
const stream = device.stream();
const world =
  engine === "nccl" ? await uniqueIdOfRankZero(() => ncclUniqueId()) : { uniqueId: undefined };
const comm = await Communicator.open(stream, { engine, ...world, timeoutSeconds: 60 });
const { rank, size } = comm;
const digest = createHash("sha256");
const problems: string[] = [];
const sent: Record<string, number> = {};

/** The tensor of rank `r` in round `round`: what every rank can draw for itself. */
function draw(dtype: DType, count: number, round: number, r: number): HostArray {
  const array = hostArray(dtype, count);
  let state = (seed * 2654435761 + round * 40503 + r * 9973 + 1) >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // Numbers of many sizes, so that the order of a sum shows in its bits.
    array[i] = dtype === "f32" ? (state / 2 ** 32 - 0.5) * 10 ** (state % 7) : state >>> 16;
  }
  return array;
}

function bytes(array: HostArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function compare(what: string, got: HostArray, expected: HostArray): void {
  const [a, b] = [bytes(got), bytes(expected)];
  const wrong = a.length === b.length ? a.findIndex((byte, i) => byte !== b[i]) : -2;
  if (wrong !== -1) problems.push(`rank ${rank}: ${what}: byte ${wrong}`);
}

/** Whether sums have the order of ranks. NCCL has one of its own, which two ranks do not show. */
const ordered = engine !== "nccl" || deviceName === "emulated" || size <= 2;

/** As {@link compare}, for sums: their order is worth a rounding of the largest term or two. */
function compareSums(what: string, got: HostArray, parts: readonly HostArray[]): void {
  const expected = sum(parts);
  if (ordered) {
    compare(what, got, expected);
    return;
  }
  const wrong = got.findIndex((x, i) => {
    const terms = parts.reduce((total, part) => total + Math.abs(part[i]!), 0);
    return !(Math.abs(x - expected[i]!) <= size * 2 ** -23 * terms);
  });
  if (wrong !== -1) problems.push(`rank ${rank}: ${what}: element ${wrong}`);
}

/** f32 sums in the order of ranks. */
function sum(parts: readonly HostArray[]): HostArray {
  const result = Float32Array.from(parts[0]!);
  for (const part of parts.slice(1))
    for (let i = 0; i < part.length; i++) result[i] = Math.fround(result[i]! + part[i]!);
  return result;
}

function concatenate(dtype: DType, parts: readonly HostArray[]): HostArray {
  const all = hostArray(
    dtype,
    parts.reduce((n, part) => n + part.length, 0),
  );
  let at = 0;
  for (const part of parts) {
    all.set(part as never, at);
    at += part.length;
  }
  return all;
}

function count(op: string, bytesSent: number): void {
  sent[op] = (sent[op] ?? 0) + bytesSent;
}

const ranks = Array.from({ length: size }, (_, r) => r);
const poison = (tensor: Tensor) => stream.write(tensor, new Uint8Array(tensor.bytes).fill(0xff)); // NaN

let round = 0;
for (const n of [1, 0, 7, 32, 1000, 70_001, 2 ** 18 + 5]) {
  const arena = device.arena(8 * 4 * (size + 1) * (n + 64), "round");
  round++;
  for (const dtype of ["f32", "bf16", "i32"] as const) {
    const parts = ranks.map((r) => draw(dtype, n, round, r));
    const to = arena.tensor(dtype, [size * n]);
    const from = arena.tensor(dtype, [n]);
    poison(to);
    stream.write(from, parts[rank]!);
    comm.allGather(to, from);
    compare(`all_gather of ${n} ${dtype}`, await stream.read(to), concatenate(dtype, parts));
    compare(`all_gather of ${n} ${dtype}: its source`, await stream.read(from), parts[rank]!);
    poison(to);
    const own = to.slice(rank * n, (rank + 1) * n);
    stream.write(own, parts[rank]!);
    comm.allGather(to, own);
    compare(
      `all_gather of ${n} ${dtype} in place`,
      await stream.read(to),
      concatenate(dtype, parts),
    );
    count("all_gather", 2 * (size - 1) * from.bytes);

    const root = (round + n) % size;
    poison(from);
    if (rank === root) stream.write(from, parts[root]!);
    comm.broadcast(from, root);
    compare(`broadcast of ${n} ${dtype}`, await stream.read(from), parts[root]!);
    count("broadcast", rank === root ? (size - 1) * from.bytes : 0);
  }
  const wholes = ranks.map((r) => draw("f32", size * n, round + 100, r));
  const mine = wholes.map((whole) => whole.subarray(rank * n, (rank + 1) * n));
  const from = arena.tensor("f32", [size * n]);
  const to = arena.tensor("f32", [n]);
  poison(to);
  stream.write(from, wholes[rank]!);
  comm.reduceScatter(to, from);
  compareSums(`reduce_scatter of ${n}`, await stream.read(to), mine);
  compare(`reduce_scatter of ${n}: its source`, await stream.read(from), wholes[rank]!);
  const own = from.slice(rank * n, (rank + 1) * n);
  comm.reduceScatter(own, from);
  compareSums(`reduce_scatter of ${n} in place`, await stream.read(own), mine);
  count("reduce_scatter", 2 * (size - 1) * to.bytes);

  // A length that the ranks cannot share evenly: part r is [⌊r n / R⌋, ⌊(r+1) n / R⌋).
  const x = to;
  const terms = ranks.map((r) => draw("f32", n, round + 200, r));
  stream.write(x, terms[rank]!);
  comm.allReduce(x);
  const reduced = await stream.read(x);
  compareSums(`all_reduce of ${n}`, reduced, terms);
  digest.update(bytes(reduced));
  const part = Math.floor(((rank + 1) * n) / size) - Math.floor((rank * n) / size);
  const even = 2 * (size - 1) * Math.floor((4 * n) / size);
  count("all_reduce", engine === "nccl" ? even : size > 1 ? 4 * (n - part + (size - 1) * part) : 0);
  comm.barrier();
  arena.dispose();
}
count("barrier", 0);

for (const root of ranks) {
  const mine = Uint8Array.from({ length: 100 + root }, (_, i) => (rank + 1) * i);
  const got = await comm.broadcastBytes(mine, root);
  const wanted = Uint8Array.from({ length: 100 + root }, (_, i) => (root + 1) * i);
  if (!got.every((byte, i) => byte === wanted[i])) problems.push(`broadcastBytes from ${root}`);
  count("broadcast_bytes", rank === root ? (size - 1) * mine.length : 0);
}
await stream.done();
for (const { op, bytes: counted } of comm.counters()) {
  if (counted !== sent[op]) problems.push(`rank ${rank}: ${op}: ${counted} bytes, not ${sent[op]}`);
}
const counters = comm.counters();
await comm.close();
report(rank, { size, engine: comm.engine, problems, digest: digest.digest("hex"), counters });
stream.dispose();
device.dispose();
