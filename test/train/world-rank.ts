import { Communicator, openDevice } from "#src/native/index.js";
import { ranksFromEnvironment } from "#src/parallel/ranks.js";
import { openWorld } from "#src/train/world.js";
import { report } from "../support/ranks.js";

// A rank of test/train/world.test.ts: rank 0 stops before all have met, the others say what they make of it.
// Argument: when it stops.
const ranks = ranksFromEnvironment(process.env);
const device = openDevice("cpu", { threads: 1 });
const stream = device.stream({ synchronous: false });
if (ranks.rank === 0) {
  if (process.argv[2] === "after MPI has started")
    await Communicator.open(stream, { engine: "mpi", timeoutSeconds: 60 });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); // until mpirun ends it
}
const began = performance.now();
try {
  await openWorld(ranks, device, { ddpTimeout: 1800 });
} catch (error) {
  const { name, message } = error as Error;
  report(ranks.rank, { name, message, seconds: (performance.now() - began) / 1e3 });
}
process.exitCode = 1; // nothing keeps the process, whatever a thread still waits in
