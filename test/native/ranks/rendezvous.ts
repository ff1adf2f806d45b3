import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Rank, size and the id that rank 0 draws, for engines that have to be told. Goes through a file. */
export async function uniqueIdOfRankZero(draw: () => Uint8Array) {
  const rank = Number(process.env.RANK ?? 0);
  const size = Number(process.env.WORLD_SIZE ?? 1);
  const file = path.join(process.env.SIMPER_TEST_REPORTS!, "unique-id");
  if (rank === 0) {
    writeFileSync(`${file}.tmp`, draw());
    renameSync(`${file}.tmp`, file);
  }
  while (!existsSync(file)) await sleep(5);
  return { rank, size, uniqueId: new Uint8Array(readFileSync(file)) };
}
