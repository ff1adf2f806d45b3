import { constants } from "node:os";
import { startGuard } from "./guard.js";
import { createRankOutput, type OutputOptions, type RankOutput } from "./output.js";
import { endSessions } from "./processes.js";
import type { RankEnd, Running } from "./running.js";

/** Output of the ranks, told apart, on this process's own two streams. */
export interface LaunchOutput {
  readonly stdout: RankOutput;
  readonly stderr: RankOutput;
}

/** @param terminal whether what goes to stderr is seen by a person, so that a line can be redrawn */
export function launchOutput(
  terminal: boolean,
  write: { out: OutputOptions["write"]; err: OutputOptions["write"] },
): LaunchOutput {
  return {
    stdout: createRankOutput({ write: write.out, live: false }),
    stderr: createRankOutput({ write: write.err, live: terminal }),
  };
}

/** What a person or a batch system wants of a launcher while it runs. */
export interface LaunchControl {
  /** Registers what to do at each request to stop; the first asks the ranks, the second ends them. */
  onStop(listener: () => void): () => void;
}

/** SIGINT and SIGTERM of this process. */
export const signalControl: LaunchControl = {
  onStop(listener) {
    const signals = ["SIGINT", "SIGTERM"] as const;
    for (const signal of signals) process.on(signal, listener);
    return () => {
      for (const signal of signals) process.off(signal, listener);
    };
  },
};

/**
 * Stays with the ranks of a run until the last has ended. The first signal asks them to save a checkpoint, the
 * second ends them. Nothing that was started is left behind, not even when this process is killed.
 *
 * @param start starts the ranks; what it throws is thrown here
 * @returns what the launcher should end with: 0, 130 when stopped, else the code of the rank that failed first
 * @throws CommError when the ranks could not be started
 */
export async function launch(
  start: (output: LaunchOutput) => Running | Promise<Running>,
  output: LaunchOutput,
  control: LaunchControl = signalControl,
): Promise<number> {
  const guard = startGuard();
  let requests = 0;
  let running: Running | undefined;
  const off = control.onStop(() => {
    requests++;
    if (running === undefined) process.exit(INTERRUPTED); // while it waits for other machines
    if (requests === 1) running.stop();
    else void endSessions(running.pids, running.graceMs);
  });
  try {
    running = await start(output);
    for (const pid of running.pids) guard.watch(pid);
    const { pids, graceMs } = running;
    let end: RankEnd;
    try {
      end = await running.ended;
    } catch (error) {
      await endSessions(pids, graceMs);
      throw error;
    } finally {
      await endSessions(pids, 0); // nothing is left, and pipes that a child of a rank held are closed
      await running.drained;
      output.stdout.end();
      output.stderr.end();
    }
    return report(end, output.stderr, requests);
  } finally {
    off();
    guard.dismiss();
  }
}

const INTERRUPTED = 130;
/** Of a rank that was asked to stop before it listened. */
const UNHEARD = 128 + constants.signals.SIGUSR2;

function report(end: RankEnd, stderr: RankOutput, requests: number): number {
  const { exitCode, reason, told } = end;
  if (exitCode === 0) return 0;
  const isAsked = exitCode === INTERRUPTED || exitCode === UNHEARD;
  if (requests > 1 || (requests > 0 && isAsked)) return INTERRUPTED;
  if (reason !== undefined && !(told && stderr.told)) stderr.line(`simper-native: ${reason}`);
  return exitCode;
}
