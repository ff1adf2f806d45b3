// A rank of comm-nccl.test.ts: what happens when others do not come. Arguments: scenario, device.
import { setTimeout as sleep } from "node:timers/promises";
import { Communicator, type DeviceName, ncclUniqueId, openDevice } from "#src/native/index.js";
import { everyReport, report } from "../../support/ranks.js";
import { uniqueIdOfRankZero } from "./rendezvous.js";

const [scenario = "", deviceName] = process.argv.slice(2) as [string, DeviceName];
const device = openDevice(deviceName, { threads: 1 });
const [compute, stream] = [device.stream(), device.stream()];
const arena = device.arena(1 << 16, "failures");
const x = arena.tensor("f32", [100]);

/** Name and message of what a promise was rejected with; null where it was not. */
async function failure(work: () => Promise<unknown>): Promise<string | null> {
  try {
    await work();
    return null;
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
}

async function openings(): Promise<unknown[]> {
  const engine = "nccl";
  const timeoutSeconds = 1;
  const other = openDevice("cpu", { threads: 1 }).stream();
  const uniqueId = ncclUniqueId();
  const open = (on: typeof stream, options: object) => () =>
    Communicator.open(on, { engine, timeoutSeconds, ...options });
  return [
    await failure(open(stream, { uniqueId, rank: 0, size: 2 })),
    await failure(open(stream, { uniqueId: new Uint8Array(3), rank: 0, size: 1 })),
    await failure(open(stream, { uniqueId })),
    await failure(open(other, { uniqueId, rank: 0, size: 1 })),
  ];
}

async function run(): Promise<unknown[]> {
  if (scenario === "library") return [await failure(async () => ncclUniqueId())];
  if (scenario === "open") return openings();
  const world = await uniqueIdOfRankZero(() => ncclUniqueId());
  const timeoutSeconds = scenario === "silence" ? 1 : 120;
  const comm = await Communicator.open(stream, { engine: "nccl", ...world, timeoutSeconds });
  comm.barrier();
  await stream.done();
  if (scenario === "fault") {
    // The event is recorded all the same: what went wrong is heard where the streams are waited for.
    const event = device.event();
    comm.allReduce(x);
    stream.record(event);
    compute.wait(event);
    return [await failure(() => compute.done()), await failure(() => stream.done())];
  }
  if (comm.rank === 1) return [];
  const ready = device.event();
  const whole = arena.tensor("f32", [200]);
  comm.allGather(whole, x);
  stream.record(ready);
  compute.wait(ready);
  if (scenario === "silence") {
    return [await failure(() => stream.done()), await failure(() => compute.done())];
  }
  await sleep(300);
  if (scenario === "dispose") {
    const waiting = failure(() => stream.done());
    stream.dispose();
    return [await waiting];
  }
  comm.abort("rank 1 was lost");
  const seen = [await failure(() => stream.done()), await failure(() => compute.done())];
  comm.barrier();
  return [...seen, await failure(() => stream.done())];
}

const rank = Number(process.env.RANK ?? 0);
const size = Number(process.env.WORLD_SIZE ?? 1);
report(rank, await run());
for (let rest = 100; rest > 0 && !everyReport(size); rest--) await sleep(100);
process.exit(0);
