import { rm } from "node:fs/promises";
import { listCheckpoints } from "./run-checkpoint.js";

/** Keeps the newest `limit` checkpoints of a run and always the one just written; null keeps all. */
export async function removeOldCheckpoints(
  outputDir: string,
  limit: number | null,
  justWritten: string,
): Promise<void> {
  if (limit === null) return;
  const checkpoints = await listCheckpoints(outputDir);
  for (const { dir } of checkpoints.slice(0, Math.max(0, checkpoints.length - limit))) {
    if (dir !== justWritten) await rm(dir, { recursive: true, force: true });
  }
}
