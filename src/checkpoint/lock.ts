import { rmdirSync, rmSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CheckpointError } from "../errors.js";
import { makeFolder } from "./files.js";
import { isRunning, processSpace, startTime } from "./process.js";

/** A folder that this process alone writes to, until released. */
export interface FolderLock {
  release(): void;
}

const TRIES = 3;

/**
 * Locks a folder for one run, creating it where it is not there. Each run puts down a file
 * `.lock-<pid>-<start time>-<process space>` and then looks for others: of two that start together none can
 * miss the other. Files of processes that are gone count for nothing and are removed. Whether a process of
 * another machine or container is gone cannot be seen from here: its file counts until a person removes it.
 *
 * @throws CheckpointError naming the process that holds the folder, or why the folder cannot be written.
 */
export async function lockFolder(folder: string): Promise<FolderLock> {
  const { pid } = process;
  const own = ownLock(folder);
  const created = await makeFolder(folder);
  for (let tries = 1; ; tries++) {
    await writeFile(own, "", { flag: "wx" }).catch((error: NodeJS.ErrnoException) => {
      throw error.code === "EEXIST" ? held(folder, { who: OWN, file: own }) : error;
    });
    // For people only: all that counts is in the name, which appears at once.
    await writeFile(own, `process ${pid} on host ${hostname()}`).catch(() => {});
    const other = await otherHolder(folder, own);
    if (other === undefined) break;
    await rm(own, { force: true });
    if (tries === TRIES) throw held(folder, other);
    // Two that start together see each other and both step back: the waits differ, so one gets in.
    await sleep(20 + Math.random() * 150);
  }
  const release = (): void => {
    process.off("exit", release);
    rmSync(own, { force: true });
    if (created !== undefined) removeEmpty(path.resolve(folder), path.resolve(created));
  };
  process.on("exit", release);
  return { release };
}

/** The file by which this process locks a folder. */
export function ownLock(folder: string): string {
  const { pid } = process;
  return path.join(folder, `.lock-${pid}-${startTime(pid)}-${processSpace()}`);
}

const OWN = "another run of this process";

interface Holder {
  readonly who: string;
  readonly file: string;
  /** Its pid means nothing here: nobody can tell whether it still runs. */
  readonly elsewhere?: boolean;
}

async function otherHolder(folder: string, own: string): Promise<Holder | undefined> {
  for (const name of await readdir(folder)) {
    const match = /^\.lock-(\d+)-(\d+)-([0-9a-f]+)$/.exec(name);
    const file = path.join(folder, name);
    if (match === null || file === own) continue;
    const pid = Number(match[1]);
    if (match[3] !== processSpace()) {
      const text = await readFile(file, "utf8").catch(() => "");
      const who = /^process \d+ on host [\w.-]+$/.test(text) ? text : `process ${pid}`;
      return { who: `${who}, of another machine or container,`, file, elsewhere: true };
    }
    if (isRunning(pid, match[2]!)) return { who: `process ${pid}`, file };
    await rm(file, { force: true });
  }
  return undefined;
}

function held(folder: string, { who, file, elsewhere }: Holder): CheckpointError {
  const hint = elsewhere
    ? `wait until it ends, or choose another output_dir; if it is gone (killed, its machine restarted), remove its lock: rm '${file}'`
    : "wait until it ends or stop it, or choose another output_dir";
  return new CheckpointError(`output_dir ${folder}: ${who} is training into it (${file})`, {
    hint,
  });
}

/** Removes the folders that the lock created, from the innermost outwards, as long as they are empty. */
function removeEmpty(folder: string, outermost: string): void {
  try {
    for (let at = folder; at.startsWith(outermost); at = path.dirname(at)) rmdirSync(at);
  } catch {
    // It holds something: a run was here.
  }
}
