/**
 * The processes of a run as one group: what they agree on, and who is still there. Messages are JSON and few:
 * settings, checkpoints, errors. Tensors travel by a Communicator.
 *
 * Every rank has to make the same calls in the same order; `what` names a call and has to agree, too.
 */
export interface ProcessGroup {
  readonly rank: number;
  readonly size: number;
  /** Rank among the processes on this machine. */
  readonly localRank: number;
  readonly localSize: number;
  /** The values of all ranks, by rank, on every rank. @throws CommError when `what` differs or a rank is lost. */
  gather<T>(what: string, value: T): Promise<T[]>;
  /** Rank 0's value, on every rank. @throws as {@link gather} */
  broadcast<T>(what: string, value: T): Promise<T>;
  /** Resolves once every rank has called it. @throws as {@link gather} */
  barrier(what: string): Promise<void>;
  /** Says what this rank does from now on: others are told so when it is lost. Costs next to nothing. */
  doing(what: string): void;
  /**
   * Aborted once when the run has failed: a rank died, hung, or called {@link fail}. The reason is a CommError that
   * names the rank and what it was doing.
   */
  readonly failure: AbortSignal;
  /** Tells all ranks of an error of this one; resolves once they can be expected to know. Never rejects. */
  fail(error: unknown): Promise<void>;
  /** Leaves in good order, once every rank has called it: what follows is no failure. */
  close(): Promise<void>;
}

/** The group of one process: everything resolves with its own values. */
export function soloGroup(): ProcessGroup {
  const never = new AbortController().signal;
  return {
    rank: 0,
    size: 1,
    localRank: 0,
    localSize: 1,
    gather: async (_what, value) => [value],
    broadcast: async (_what, value) => value,
    barrier: async () => {},
    doing: () => {},
    failure: never,
    fail: async () => {},
    close: async () => {},
  };
}
