// A rank of comm-mpi.test.ts: what happens when the others do not come. Arguments: scenario, device.
import { setTimeout as sleep } from "node:timers/promises";
import { Communicator, type DeviceName, openDevice } from "#src/native/index.js";
import { everyReport, report } from "../../support/ranks.js";

const [scenario = "", deviceName] = process.argv.slice(2) as [string, DeviceName];
const device = openDevice(deviceName, { threads: 1 });
const [compute, stream] = [device.stream(), device.stream()];
const arena = device.arena(1 << 20, "failures");
const x = arena.tensor("f32", [1000]);
const y = arena.tensor("f32", [1000]);
const whole = arena.tensor("f32", [4000]);
const launched = Number(process.env.OMPI_COMM_WORLD_RANK ?? 0);

/** Name and message of what a promise was rejected with; null where it was not. */
async function failure(work: Promise<unknown>): Promise<string | null> {
  try {
    await work;
    return null;
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
}

if (scenario === "nobody-comes" && launched === 1) {
  await sleep(3000);
  process.exit(1);
}
if (scenario === "alone") {
  // Not under mpirun: a world of one, unless the caller knows better or MPI is missing.
  const world = { rank: 1, size: 4 };
  const opened = Communicator.open(stream, { engine: "mpi", ...world, timeoutSeconds: 60 });
  report(launched, [await failure(opened)]);
  process.exit(0);
}
const timeoutSeconds = scenario === "abort" || scenario === "dispose" ? 120 : 1;
const opening = Communicator.open(stream, { engine: "mpi", timeoutSeconds });
if (scenario === "nobody-comes") {
  report(launched, [await failure(opening)]);
  process.exit(1); // although a thread waits in MPI_Init
}
const comm = await opening;
const { rank, size } = comm;
const ready = device.event();
comm.barrier();
await stream.done();

const scenarios: Record<string, () => Promise<unknown>> = {
  // Ranks 2 and 3 take no part in the third operation.
  async silence() {
    comm.allReduce(x);
    if (rank < 2) comm.allGather(whole.slice(0, 1000 * size), x);
    if (rank < 2) return [await failure(stream.done()), await later()];
    await stream.done();
    await sleep(3000);
    return [];
  },
  // Each is somewhere else.
  async mismatch() {
    if (rank === 0) comm.allReduce(x);
    else comm.barrier();
    return [await failure(stream.done())];
  },
  // The same operation, on tensors of other sizes.
  async sizes() {
    comm.broadcast(rank === 0 ? x.slice(0, 10) : rank === 1 ? x.slice(0, 9) : x.slice(0, 11), 0);
    return [await failure(stream.done())];
  },
  // Ranks 1 and up wait for rank 0, which tells them after a while that it will not come.
  async abort() {
    if (rank === 0) {
      await sleep(2000);
      return [];
    }
    compute.fill(x, 1);
    comm.allReduce(x);
    stream.record(ready);
    compute.wait(ready);
    compute.fill(y, 7);
    await sleep(200);
    comm.abort("rank 0 died of boredom in checkpoint-7");
    const failures = [await failure(stream.done()), await failure(compute.done()), await later()];
    return [...failures, ...(await compute.read(y)).slice(0, 1)];
  },
  // A stream that waits for others can be disposed.
  async dispose() {
    if (rank === 0) {
      await sleep(2000);
      return [];
    }
    comm.barrier();
    const waiting = failure(stream.done());
    await sleep(200);
    stream.dispose();
    return [await waiting];
  },
  async throw() {
    if (rank === 1) throw new Error("rank 1 throws");
    comm.barrier();
    await stream.done();
    return [];
  },
  async second() {
    const other = Communicator.open(compute, { engine: "mpi", timeoutSeconds });
    const found = [await failure(other)];
    comm.barrier(); // the first has noticed nothing
    await stream.done();
    await comm.close();
    const third = Communicator.open(stream, { engine: "mpi", timeoutSeconds });
    return [...found, await failure(third)];
  },
};

/** An operation after a failure. */
function later(): Promise<string | null> {
  comm.barrier();
  return failure(stream.done());
}

report(rank, await scenarios[scenario]!());
// What has failed does not take leave, and the first to go takes the others with it: after their reports.
for (let rest = 100; rest > 0 && !everyReport(size); rest--) await sleep(100);
process.exit(scenario === "second" ? 0 : 1);
