import assert from "node:assert/strict";
import { test } from "node:test";
import { Communicator, deviceCount, openDevice } from "#src/native/index.js";
import { TEST_DEVICES } from "../ops/harness/devices.js";

const name = TEST_DEVICES[0]!;

async function openSelf() {
  const device = openDevice(name, { threads: 1 });
  const stream = device.stream();
  const arena = device.arena(2 ** 20, "comm");
  const comm = await Communicator.open(stream, { engine: "self", timeoutSeconds: 1 });
  return {
    device,
    stream,
    arena,
    comm,
    [Symbol.dispose]() {
      stream.dispose();
      arena.dispose();
      device.dispose();
    },
  };
}

test("comm: a world of one keeps what it has", async () => {
  using all = await openSelf();
  const { stream, arena, comm } = all;
  assert.deepEqual([comm.rank, comm.size, comm.engine], [0, 1, "self"]);
  const [x, y] = [arena.tensor("f32", [3]), arena.tensor("f32", [3])];
  stream.write(x, Float32Array.of(1, -2, 3.5));
  comm.allGather(y, x);
  comm.allGather(y, y);
  assert.deepEqual(await stream.read(y), Float32Array.of(1, -2, 3.5));
  stream.fill(y, Number.NaN);
  comm.reduceScatter(y, x);
  comm.allReduce(y);
  comm.broadcast(y, 0);
  comm.barrier();
  assert.deepEqual(await stream.read(y), Float32Array.of(1, -2, 3.5));
  assert.deepEqual(await comm.broadcastBytes(Uint8Array.of(4, 5), 0), Uint8Array.of(4, 5));
  assert.deepEqual(
    comm.counters().map(({ op, calls, bytes }) => [op, calls, bytes]),
    [
      ["all_gather", 2, 0],
      ["reduce_scatter", 1, 0],
      ["all_reduce", 1, 0],
      ["broadcast", 1, 0],
      ["barrier", 1, 0],
      ["broadcast_bytes", 1, 0],
    ],
  );
  await comm.close();
  assert.throws(() => comm.barrier(), {
    name: "ContractError",
    message: /^this communicator was disposed/,
  });
});

test("comm: after abort every operation fails with the reason", async () => {
  using all = await openSelf();
  all.comm.abort("rank 3 was lost");
  for (let i = 0; i < 2; i++) {
    all.comm.barrier();
    await assert.rejects(all.stream.done(), { name: "CommError", message: "rank 3 was lost" });
  }
  await all.comm.close(); // waits for nobody
});

test("comm: tensors that do not fit together are refused at the call", async () => {
  using all = await openSelf();
  const { arena, comm } = all;
  const x = arena.tensor("f32", [12]);
  const y = arena.tensor("f32", [5]);
  const b = arena.tensor("bf16", [12]);
  const strided = x.view([3, 2], { rowStride: 4 });
  const refuse = (call: () => void, message: string) =>
    assert.throws(call, { name: "ContractError", message });
  refuse(
    () => comm.allGather(x, y),
    "all_gather: to has 12 elements, expected 5 = 1 ranks · 5 of from",
  );
  refuse(
    () => comm.reduceScatter(y, x),
    "reduce_scatter: from has 12 elements, expected 5 = 1 ranks · 5 of to",
  );
  refuse(() => comm.allGather(x, b), "all_gather: from has dtype bf16, expected f32 = that of to");
  refuse(
    () => comm.allReduce(b),
    "all_reduce: x has dtype bf16, expected f32: sums of other types would depend on the number of ranks",
  );
  refuse(
    () => comm.reduceScatter(b, b),
    "reduce_scatter: from has dtype bf16, expected f32: sums of other types would depend on the number of ranks",
  );
  refuse(
    () => comm.allGather(x.slice(0, 6), x.slice(3, 9)),
    "all_gather: from lies over to, expected it apart or as this rank's own part of it",
  );
  refuse(() => comm.allReduce(strided), "all_reduce: x is a strided view, expected a dense one");
  refuse(() => comm.broadcast(x, 1), "broadcast: root is 1, expected a rank from 0 to 0");
  await assert.rejects(comm.broadcastBytes(new Uint8Array(1), -1), {
    message: "broadcast_bytes: root is -1, expected a rank from 0 to 0",
  });
  assert.throws(() => comm.allReduce({} as never), {
    message: "allReduce: argument 1 (tensor) is an object of class Object, expected a tensor",
  });
  const other = openDevice(name, { threads: 1 });
  const foreign = other.arena(64, "foreign");
  refuse(
    () => comm.allReduce(foreign.tensor("f32", [2])),
    "the tensor and the communicator's stream are of different devices",
  );
  foreign.dispose();
  other.dispose();
});

test("comm: options that cannot be are refused", async () => {
  using all = await openSelf();
  const open = (options: object) =>
    Communicator.open(all.stream, { engine: "self", timeoutSeconds: 1, ...options } as never);
  await assert.rejects(open({ timeoutSeconds: 0 }), {
    name: "ContractError",
    message: "open: timeoutSeconds is 0, expected a number > 0",
  });
  await assert.rejects(open({ rank: 2, size: 2 }), {
    name: "ContractError",
    message: "open: rank 2 of 2, expected 0 <= rank < size",
  });
  await assert.rejects(open({ rank: 0 }), {
    name: "ContractError",
    message: "open: rank and size are given together or not at all",
  });
  await assert.rejects(open({ rank: 0, size: 2 }), {
    name: "CommError",
    message: "open: the engine self is a world of one, expected size 1, got 2",
  });
  await assert.rejects(open({ engine: "gloo" }), {
    name: "ContractError",
    message: 'open: the engine is "gloo", expected self, mpi or nccl',
  });
  // The stream is none the worse for it.
  all.comm.barrier();
  await all.stream.done();
});

test("comm: a device that is not there", () => {
  assert.throws(() => openDevice("cpu", { index: -1 }), {
    name: "DeviceError",
    message: "cpu device -1, expected a whole number from 0",
  });
  if (name !== "cuda") {
    assert.equal(deviceCount(name), 1);
    return;
  }
  assert.throws(() => openDevice("cuda", { index: 99 }), {
    name: "DeviceError",
    message: /^no CUDA device: GPU 99 was asked for, and \d+ (is|are) visible, counted from 0/,
  });
});
