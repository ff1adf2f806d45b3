import { readdirSync, readFileSync } from "node:fs";

/** A process as `/proc` tells of it. */
interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
  /** Name of its program. */
  readonly name: string;
  /** Ended, and waiting for its parent to notice. */
  readonly ended: boolean;
}

/**
 * The living processes of these sessions. Each program that we start has a session of its own, which its children
 * belong to wherever they put themselves otherwise: mpirun gives each rank its own process group.
 *
 * @param sessions pids of the processes that opened them
 */
export function livingOf(sessions: readonly number[]): number[] {
  return processes()
    .filter(({ session, ended }) => sessions.includes(session) && !ended)
    .map(({ pid }) => pid);
}

/** The processes that a program of these sessions has started itself. */
export function childrenOf(sessions: readonly number[], program: string): number[] {
  const members = processes().filter(({ session }) => sessions.includes(session));
  const parents = members.filter(({ name }) => name === program).map(({ pid }) => pid);
  return members.filter(({ parent }) => parents.includes(parent)).map(({ pid }) => pid);
}

/**
 * Ends all processes of these sessions: SIGTERM to their leaders, so that mpirun ends what it started on other
 * machines; SIGKILL for all that is left after `graceMs`.
 */
export async function endSessions(sessions: readonly number[], graceMs: number): Promise<void> {
  if (graceMs > 0) {
    for (const pid of livingOf(sessions).filter((pid) => sessions.includes(pid)))
      send(pid, "SIGTERM");
    const until = Date.now() + graceMs;
    while (Date.now() < until && livingOf(sessions).length > 0) await sleep(50);
  }
  // A process may fork while the list is read, so the list is read until it is empty.
  for (let round = 0; round < 100; round++) {
    const left = livingOf(sessions);
    if (left.length === 0) return;
    for (const pid of left) send(pid, "SIGKILL");
    await sleep(20);
  }
}

/** Sends a signal to a process, which may be gone by now. */
export function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function processes(): ProcessEntry[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readEntry(Number(name)) ?? []);
}

/** From `/proc/<pid>/stat`; undefined when the process is gone. */
function readEntry(pid: number): ProcessEntry | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  const end = text.lastIndexOf(")"); // a name may hold blanks and brackets
  const [state = "", parent, , session] = text.slice(end + 2).split(" ");
  const name = text.slice(text.indexOf("(") + 1, end);
  const ended = /[ZX]/.test(state);
  return { pid, parent: Number(parent), session: Number(session), name, ended };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
