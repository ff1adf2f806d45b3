import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { cleanTemporary } from "../checkpoint/files.js";
import { type FolderLock, lockFolder, ownLock } from "../checkpoint/lock.js";
import { Together } from "../checkpoint/together.js";
import { CheckpointError, SimperError } from "../errors.js";
import type { ProcessGroup } from "../parallel/group.js";
import { listCheckpoints } from "./run-checkpoint.js";

/**
 * Creates output_dir where it is not there and keeps other runs out of it until the lock is released.
 *
 * @throws CheckpointError when another run holds the folder, or it cannot be written.
 */
export async function lockOutputDir(outputDir: string): Promise<FolderLock> {
  return lockFolder(outputDir).catch((cause) => {
    throw unwritable(outputDir, cause);
  });
}

/**
 * Makes output_dir ready for a run that starts after `step` (-1: anew). Checkpoints beyond it belong to an
 * earlier run and are moved aside, so that a later resume never mixes the two. Returns notices.
 *
 * @throws CheckpointError when the folder cannot be written.
 */
export async function prepareOutputDir(outputDir: string, step: number): Promise<string[]> {
  try {
    await cleanTemporary(outputDir);
    const earlier = (await listCheckpoints(outputDir)).filter((found) => found.step > step);
    if (earlier.length === 0) return [];
    const aside = path.join(outputDir, `previous-${Date.now()}`);
    await mkdir(aside);
    for (const { dir } of earlier) await rename(dir, path.join(aside, path.basename(dir)));
    return [
      `${earlier.length} checkpoints of an earlier run were moved to ${aside}; ` +
        "they stand beyond the step that this run starts from",
    ];
  } catch (cause) {
    throw unwritable(outputDir, cause);
  }
}

/**
 * Makes sure, before hours of training, that all ranks have one output_dir: what rank 0 has locked. Resolves once
 * all have looked.
 *
 * @throws CheckpointError on a rank that sees another folder, CommError on the others.
 */
export async function requireSharedOutput(group: ProcessGroup, outputDir: string): Promise<void> {
  if (group.size === 1) return;
  const together = new Together(group, outputDir);
  const lock = await group.broadcast("lock of output_dir", path.basename(ownLock(outputDir)));
  await together.attempt(async () => {
    if (existsSync(path.join(outputDir, lock))) return;
    throw new CheckpointError(
      `output_dir ${outputDir}: it is not the folder that rank 0 has locked (${lock} is not there)`,
      {
        hint: "output_dir has to be the same folder on all machines of the run, on a file system that they share",
      },
    );
  });
  await together.agree("output_dir");
}

function unwritable(outputDir: string, cause: unknown): SimperError {
  if (cause instanceof SimperError) return cause;
  return new CheckpointError(`output_dir ${outputDir}: ${(cause as Error).message}`, {
    hint: "choose a folder that can be written to",
    cause,
  });
}

/**
 * Keeps `limit` checkpoints: those in `keep`, whatever their number, and of the others the newest. Null keeps
 * all.
 */
export async function removeOldCheckpoints(
  outputDir: string,
  limit: number | null,
  keep: readonly string[],
): Promise<void> {
  if (limit === null) return;
  const kept = new Set(keep.map((dir) => path.resolve(dir)));
  const checkpoints = await listCheckpoints(outputDir);
  let surplus = checkpoints.length - limit;
  for (const { dir } of checkpoints) {
    if (surplus <= 0) return;
    if (kept.has(path.resolve(dir))) continue;
    await rm(dir, { recursive: true, force: true });
    surplus--;
  }
}
