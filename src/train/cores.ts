import { readFileSync } from "node:fs";
import os from "node:os";
import { addonInfo } from "../native/index.js";
import type { ProcessGroup } from "../parallel/group.js";

/** What a process may compute on, as it tells the other ranks. */
export interface Allowance {
  /** The running system that it is part of: ranks in two containers of a machine share its cores, too. */
  readonly machine: string;
  /** Cores that it may run on, as Linux writes them: `0-3,8`; empty where that is not known. */
  readonly cores: string;
  /** Threads that it would take alone: its cores, or fewer where its container has a quota. */
  readonly threads: number;
}

/**
 * Compute threads of this rank. Ranks that may run on the same cores share them evenly, whatever has bound them or
 * not: mpirun, srun, a container. OMP_NUM_THREADS decides where it is set.
 */
export async function shareOfCores(group: ProcessGroup): Promise<number> {
  const { threads } = addonInfo().cpu;
  const all = await group.gather<Allowance>("cores", {
    machine: readOr("/proc/sys/kernel/random/boot_id", os.hostname()),
    cores: /^Cpus_allowed_list:\s*(\S+)/m.exec(readOr("/proc/self/status", ""))?.[1] ?? "",
    threads,
  });
  return process.env.OMP_NUM_THREADS ? threads : threadsOf(group.rank, all);
}

/** Threads of one rank among all. A core that k of them may run on counts 1/k for each. */
export function threadsOf(rank: number, all: readonly Allowance[]): number {
  const own = all[rank]!;
  const neighbours = all.filter(({ machine }) => machine === own.machine);
  const cores = parseCores(own.cores);
  if (cores.length === 0) return Math.max(1, Math.floor(own.threads / neighbours.length));
  const users = new Map<number, number>();
  for (const { cores: theirs } of neighbours)
    for (const core of parseCores(theirs)) users.set(core, (users.get(core) ?? 0) + 1);
  // Thirds add up to a little less than one.
  const share = Math.floor(cores.reduce((sum, core) => sum + 1 / users.get(core)!, 1e-6));
  // A quota is one of the container, for all ranks in it.
  const limit =
    own.threads < cores.length ? Math.floor(own.threads / neighbours.length) : own.threads;
  return Math.max(1, Math.min(share, limit));
}

/** The numbers of `0-3,8`. */
function parseCores(list: string): number[] {
  return list
    .split(",")
    .filter((part) => part !== "")
    .flatMap((part) => {
      const [first, last = first] = part.split("-").map(Number);
      return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
    });
}

function readOr(file: string, otherwise: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return otherwise;
  }
}
