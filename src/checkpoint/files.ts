import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { CheckpointError, SimperError } from "../errors.js";
import { isRunning, startTime } from "./process.js";

/**
 * Atomic files and folders: everything is written under a temporary name in the same folder, forced to
 * disk, then renamed. A reader, or a run started after a crash, sees the old state or the new one.
 */

const PREFIX = ".tmp-";
let counter = 0;
/** Temporary names this process is writing now. */
const active = new Set<string>();

/** A new name beside `target`: `.tmp-<pid>-<start time of the process>-<n>-<base name>`. */
export function temporaryName(target: string): string {
  const name = `${PREFIX}${process.pid}-${startTime(process.pid)}-${counter++}-${path.basename(target)}`;
  const full = path.join(path.dirname(target), name);
  active.add(full);
  return full;
}

/** Moves a finished temporary file or folder to its name and forces the folder that holds it. */
export async function publish(temporary: string, target: string): Promise<void> {
  await rename(temporary, target);
  active.delete(temporary);
  await syncPath(path.dirname(target));
}

/**
 * Makes a folder and those above it, one level at a time: Node's own recursive mkdir never returns where a
 * file system knows no new folders, such as below /proc. Returns the topmost folder made, if any.
 */
export async function makeFolder(folder: string): Promise<string | undefined> {
  const make = async (): Promise<string | undefined> => {
    try {
      await mkdir(folder);
      return folder;
    } catch (error) {
      const exists = (error as NodeJS.ErrnoException).code === "EEXIST";
      if (exists && (await stat(folder)).isDirectory()) return undefined;
      throw error;
    }
  };
  try {
    return await make();
  } catch (error) {
    const parent = path.dirname(folder);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || parent === folder) throw error;
    const topmost = await makeFolder(parent);
    const own = await make();
    return topmost ?? own;
  }
}

/** Leaves a finished temporary to another process of the run, which publishes it. */
export function handOver(temporary: string): void {
  active.delete(temporary);
}

/** Removes a temporary that is not wanted after all. */
export async function discard(temporary: string): Promise<void> {
  // Another rank may still be writing into a folder: then it is emptied once more.
  await rm(temporary, { recursive: true, force: true, maxRetries: 5 });
  active.delete(temporary);
}

/**
 * Writes a file so that it appears complete or not at all.
 *
 * @throws CheckpointError naming the file, after removing the temporary one.
 */
export async function writeFileAtomic(target: string, data: string | Uint8Array): Promise<void> {
  const temporary = temporaryName(target);
  try {
    const file = await open(temporary, "w");
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await publish(temporary, target);
  } catch (error) {
    await discard(temporary);
    throw writeError(target, error);
  }
}

/**
 * Fills a folder so that it appears complete or not at all. An older folder of that name is replaced;
 * `fill` gets the temporary folder to write into.
 *
 * @throws CheckpointError naming the folder, after removing the temporary one; errors of this project
 *   raised by `fill` come through as they are.
 */
export async function writeDirectoryAtomic(
  target: string,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(target);
  try {
    await makeFolder(path.dirname(target));
    await mkdir(temporary);
    await fill(temporary);
    await publishDirectory(temporary, target);
  } catch (error) {
    await discard(temporary);
    throw writeError(target, error);
  }
}

/** Forces a finished folder and everything in it to disk and moves it to its name, in place of an older one. */
export async function publishDirectory(temporary: string, target: string): Promise<void> {
  await syncTree(temporary);
  // A folder cannot be renamed over one that has content: the old one steps aside under a temporary
  // name, so that a crash between the two renames leaves no incomplete folder behind.
  const old = temporaryName(target);
  const existed = await rename(target, old).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      return false;
    },
  );
  await publish(temporary, target).catch(async (error: unknown) => {
    if (existed) await rename(old, target);
    throw error;
  });
  if (existed) await rm(old, { recursive: true, force: true });
  active.delete(old);
}

/**
 * Removes what runs that were killed left behind in `folder`: temporary names whose process is gone.
 * Those of live processes stay. Returns the names removed.
 */
export async function cleanTemporary(folder: string): Promise<string[]> {
  const removed: string[] = [];
  const entries = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw writeError(folder, error);
  });
  for (const entry of entries) {
    const match = /^\.tmp-(\d+)-(\d+)-\d+-/.exec(entry);
    if (match === null) continue;
    const pid = Number(match[1]);
    const own = pid === process.pid && startTime(pid) === match[2];
    const alive = own ? active.has(path.join(folder, entry)) : isRunning(pid, match[2]!);
    if (alive) continue;
    await rm(path.join(folder, entry), { recursive: true, force: true });
    removed.push(entry);
  }
  return removed;
}

/** What a failed write of a checkpoint file becomes; errors that already say enough are kept. */
export function writeError(target: string, error: unknown): Error {
  if (error instanceof SimperError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const known: Record<string, [string, string]> = {
    ENOSPC: ["no space is left on the device", "Free some space, or choose another output_dir."],
    EDQUOT: ["the disk quota is used up", "Free some space, or choose another output_dir."],
    EFBIG: ["the file is larger than the limit of the system allows", "Raise `ulimit -f`."],
    EACCES: ["permission denied", "Choose an output_dir that you may write to."],
    EROFS: ["the file system is read-only", "Choose an output_dir that you may write to."],
    ENOENT: ["its folder does not exist", "Create the folder first."],
    ENOTDIR: ["a part of its path is a file", "Choose another output_dir."],
  };
  const other = "Choose another output_dir, or move aside what is in the way.";
  const [why, hint] = known[code ?? ""] ?? [message ?? String(error), other];
  return new CheckpointError(`${target}: cannot be written: ${why}`, { hint, cause: error });
}

/** Forces a file's content, or a folder's list of names, to disk. */
async function syncPath(target: string): Promise<void> {
  const handle = await open(target, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(full);
    else await syncPath(full);
  }
  await syncPath(folder);
}
