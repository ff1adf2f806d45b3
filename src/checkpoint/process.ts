import { readFileSync } from "node:fs";

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
