import { createHash } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";

/** Fields of /proc/<pid>/stat from the third on; undefined where there is no such process. */
function status(pid: number): string[] | undefined {
  try {
    // The second field is the command in parentheses and may hold spaces.
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

/** Start of a process in clock ticks since boot, which tells a reused pid from the old one. */
export function startTime(pid: number): string {
  return status(pid)?.[19] ?? "0";
}

/** Whether the process that had this pid and start time still runs; one that waits to be reaped does not. */
export function isRunning(pid: number, start: string): boolean {
  const fields = status(pid);
  return fields !== undefined && fields[19] === start && !"ZX".includes(fields[0]!);
}

let space: string | undefined;

/**
 * Names, in 12 hex digits, the machine since it was booted and the pid namespace in it: where two processes
 * agree on it, each can look up the other's pid; another machine or container has pids of its own.
 */
export function processSpace(): string {
  if (space !== undefined) return space;
  const boot = attempt(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim());
  const namespace = attempt(() => readlinkSync("/proc/self/ns/pid"));
  // Every machine numbers its first namespace alike, so without a boot id its name has to do.
  const text = `${boot ?? hostname()} ${namespace ?? ""}`;
  space = createHash("sha256").update(text).digest("hex").slice(0, 12);
  return space;
}

function attempt(read: () => string): string | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
