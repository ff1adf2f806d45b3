import { Communicator, openDevice } from "#src/native/index.js";
import { ranksFromEnvironment } from "#src/parallel/ranks.js";
import { closeWorld, openWorld } from "#src/train/world.js";
import { report } from "../support/ranks.js";

// A rank of test/train/world.test.ts: rank 0 stops at some moment, the others say what they make of it.
// Argument: when it stops.
const ranks = ranksFromEnvironment(process.env);
const device = openDevice("cpu", { threads: 1 });
const stream = device.stream({ synchronous: false });
const moment = process.argv[2];
const stops = ranks.rank === 0;
/** Until mpirun ends it. */
const stop = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
if (stops && moment !== "while the others leave") {
  if (moment === "after MPI has started")
    await Communicator.open(stream, { engine: "mpi", timeoutSeconds: 60 });
  stop();
}
const began = performance.now();
try {
  const world = (await openWorld(ranks, device, { ddpTimeout: 1800 }))!;
  await world.group.barrier("end of the run");
  if (stops) stop();
  await closeWorld(world);
} catch (error) {
  const { name, message } = error as Error;
  report(ranks.rank, { name, message, seconds: (performance.now() - began) / 1e3 });
}
process.exitCode = 1; // nothing keeps the process, whatever a thread still waits in
