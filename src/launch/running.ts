import { constants } from "node:os";

/** How the ranks of a run ended. */
export interface RankEnd {
  /** What the launcher ends with. */
  readonly exitCode: number;
  /** What happened, in a line. */
  readonly reason?: string;
  /** The rank that failed ended by itself with an exit code of ours, which come after a message. */
  readonly told?: boolean;
}

/** Whether the command line ends with this code, having said why. */
export function isOwnExit(code: number): boolean {
  return code === 1 || code === 2 || code === 130;
}

/** The ranks of a run, or the mpirun that looks after them. */
export interface Running {
  /** Processes that were started; each leads a session of its own. */
  readonly pids: readonly number[];
  /** When the last of them has ended; their output may still be on its way. */
  readonly ended: Promise<RankEnd>;
  /** When the output has been read to its end. */
  readonly drained: Promise<unknown>;
  /** Asks the ranks to save a checkpoint and to end. */
  stop(): void;
  /** What they need to end what they started on other machines, before they are killed. */
  readonly graceMs: number;
}

/** What a shell reports for a process: its exit code, or 128 + the signal that ended it. */
export function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + constants.signals[signal!];
}

/** `signal 9 (SIGKILL)`. */
export function signalText(signal: number): string {
  const name = Object.entries(constants.signals).find(([, number]) => number === signal)?.[0];
  const why = name === "SIGKILL" ? ", as the system does when memory runs out" : "";
  return `signal ${signal}${name ? ` (${name}${why})` : ""}`;
}
