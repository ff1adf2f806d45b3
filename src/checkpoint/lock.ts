import { rmdirSync, rmSync } from "node:fs";
import { readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CheckpointError } from "../errors.js";
import { makeFolder } from "./files.js";
import { isRunning, startTime } from "./process.js";

/** A folder that this process alone writes to, until released. */
export interface FolderLock {
  release(): void;
}

const TRIES = 3;

/**
 * Locks a folder for one run, creating it where it is not there. Each run puts down a file with its pid and
 * start time and then looks for others: of two that start together none can miss the other. Files of
 * processes that are gone count for nothing and are removed.
 *
 * @throws CheckpointError naming the process that holds the folder, or why the folder cannot be written.
 */
export async function lockFolder(folder: string): Promise<FolderLock> {
  const own = path.join(folder, `.lock-${process.pid}-${startTime(process.pid)}`);
  const created = await makeFolder(folder);
  for (let tries = 1; ; tries++) {
    await writeFile(own, "", { flag: "wx" }).catch((error: NodeJS.ErrnoException) => {
      throw error.code === "EEXIST" ? held(folder, process.pid, own) : error;
    });
    const other = await otherHolder(folder, own);
    if (other === undefined) break;
    await rm(own, { force: true });
    if (tries === TRIES) throw held(folder, other.pid, other.file);
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

async function otherHolder(
  folder: string,
  own: string,
): Promise<{ pid: number; file: string } | undefined> {
  for (const name of await readdir(folder)) {
    const match = /^\.lock-(\d+)-(\d+)$/.exec(name);
    const file = path.join(folder, name);
    if (match === null || file === own) continue;
    const pid = Number(match[1]);
    if (isRunning(pid, match[2]!)) return { pid, file };
    await rm(file, { force: true });
  }
  return undefined;
}

function held(folder: string, pid: number, file: string): CheckpointError {
  const who = pid === process.pid ? "another run of this process" : `process ${pid}`;
  return new CheckpointError(`output_dir ${folder}: ${who} is training into it (${file})`, {
    hint: "wait until it ends or stop it, or choose another output_dir",
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
