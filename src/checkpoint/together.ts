import { mkdir, stat } from "node:fs/promises";
import path from "node:path";
import { CheckpointError, CommError, markReported, type SimperError } from "../errors.js";
import type { ProcessGroup } from "../parallel/group.js";
import { discard, makeFolder, publishDirectory, temporaryName, writeError } from "./files.js";

/**
 * Work of every rank on files that either comes about as a whole or fails on all of them. Between collectives a rank
 * whose disk refuses goes on making them, so that nobody waits for it; {@link Together.agree} then tells all.
 *
 * @example
 * const together = new Together(group, folder);
 * await together.attempt(() => writeMyPart());
 * await together.agree("parts of the checkpoint");      // throws on every rank if one could not
 */
export class Together {
  readonly group: ProcessGroup;
  readonly #target: string;
  #error: Error | undefined;

  /** @param target what is written, for messages of the system that name nothing. */
  constructor(group: ProcessGroup, target: string) {
    this.group = group;
    this.#target = target;
  }

  /** Work of this rank alone. An error is kept for {@link agree}, and later work is left out. */
  async attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    if (this.#error) return undefined;
    try {
      return await work();
    } catch (error) {
      this.#error = writeError(this.#target, error);
      return undefined;
    }
  }

  /** As {@link attempt}, on rank 0. */
  async lead<T>(work: () => Promise<T>): Promise<T | undefined> {
    return this.group.rank === 0 ? this.attempt(work) : undefined;
  }

  /**
   * The values of all ranks, once the work of each is done.
   *
   * @throws what this rank's own work threw, or CommError naming the first rank whose work failed; those of all ranks
   *   but one are marked as reported.
   */
  async agree<T>(what: string, value?: T): Promise<T[]> {
    type Outcome = { failure: string; hint?: string | undefined } | { value: T | undefined };
    const { message: failure, hint } = (this.#error ?? {}) as Partial<SimperError>;
    const outcome: Outcome = failure === undefined ? { value } : { failure, hint };
    const outcomes = await this.group.gather<Outcome>(what, outcome);
    const failures = outcomes.map((found) => ("failure" in found ? found : undefined));
    const first = failures.findIndex((found) => found !== undefined);
    if (first < 0) return outcomes.map((found) => (found as { value: T }).value);
    // Of ranks whose disks refuse alike one tells it.
    const texts = failures.map((found) => found?.failure);
    const own = texts[this.group.rank];
    const { failure: text, hint: remedy } = failures[first]!;
    const theirs = new CommError(`rank ${first}: ${text}`, { hint: remedy, rank: first });
    const thrown = this.#error ?? theirs;
    if (own === undefined || texts.indexOf(own) < this.group.rank) markReported(thrown);
    throw thrown;
  }
}

/**
 * Fills a folder with files of all ranks so that it appears complete or not at all. An older folder of that name is
 * replaced. `fill` gets the temporary folder, which rank 0 names; every rank forces its own files to disk.
 *
 * @throws CheckpointError or CommError on every rank, after rank 0 has removed the temporary folder. One whose rank 0
 *   was lost stays until the next run removes it ({@link cleanTemporary}).
 */
export async function writeDirectoryTogether(
  group: ProcessGroup,
  target: string,
  fill: (temporary: string, together: Together) => Promise<void>,
): Promise<void> {
  const name = path.basename(target);
  const together = new Together(group, target);
  const own = group.rank === 0 ? temporaryName(target) : "";
  try {
    const made = await together.lead(async () => {
      await makeFolder(path.dirname(target));
      await mkdir(own);
      return own;
    });
    const temporary = await group.broadcast(`folder of ${name}`, made ?? "");
    if (group.rank > 0 && temporary !== "") await together.attempt(() => requireShared(temporary));
    await together.agree(`folder of ${name}`);
    await fill(temporary, together);
    await together.agree(`files of ${name}`);
    await together.lead(() => publishDirectory(temporary, target));
    await together.agree(`publication of ${name}`);
  } catch (error) {
    if (group.rank === 0) await discard(own).catch(() => {}); // the error is what there is to say
    throw writeError(target, error);
  }
}

/** Rank 0 has made a folder: it has to be there for this rank, too. */
export async function requireShared(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory()) return;
  throw new CheckpointError(`${folder}: rank 0 has made this folder, and it is not there`, {
    hint: "output_dir has to be the same folder on all machines of the run, on a file system that they share",
  });
}
