import { endSessions } from "./processes.js";

// What guard.ts's shell becomes when the launcher is gone: ends the sessions of these pids. mpirun gets time to end
// its ranks on other machines.
const GRACE_MS = 5000;
await endSessions(process.argv.slice(2).map(Number), GRACE_MS);
