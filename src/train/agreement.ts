import { createHash } from "node:crypto";
import { CommError, markReported } from "../errors.js";
import type { ProcessGroup } from "../parallel/group.js";

/** What all ranks of a run have to have alike, by the names that a message uses; values are JSON. */
export type RunFacts = Readonly<Record<string, unknown>>;

/** Characters of a value in a message. */
const SHOWN = 60;

/**
 * Compares what the ranks are about to run: a recipe, an override or a file that differs on one of them would let
 * each train something else, or wait for the others forever.
 *
 * @throws CommError on every rank, naming the ranks and what differs; rank 0 is to print it.
 */
export async function agreeOnRun(group: ProcessGroup, facts: RunFacts): Promise<void> {
  const whole = await group.gather("agreement on the run", digest(facts));
  if (new Set(whole).size === 1) return;
  // Only now, for there may be many ranks.
  const each = await group.gather(
    "facts of the run",
    Object.entries(facts).map(([name, value]) => [name, digest(value), shown(value)] as const),
  );
  const ranks = each.map((entries) => new Map(entries.map(([name, ...rest]) => [name, rest])));
  const names = [...new Set(ranks.flatMap((known) => [...known.keys()]))];
  const differing = names.flatMap((name) => {
    const groups = new Map<string, { text: string; members: number[] }>();
    for (const [rank, known] of ranks.entries()) {
      const [key = "", text = "unknown"] = known.get(name) ?? [];
      const found = groups.get(key) ?? { text, members: [] };
      groups.set(key, found);
      found.members.push(rank);
    }
    if (groups.size === 1) return [];
    const texts = [...groups.values()].map(({ text, members }) => `${text} on ${namesOf(members)}`);
    return [`${name}: ${texts.join(", ")}`];
  });
  const error = new CommError(
    `the ranks are about to run different things: ${differing.join("; ")}`,
    {
      hint: "start all of them with the same recipe, overrides, data and model files",
    },
  );
  if (group.rank > 0) markReported(error);
  throw error;
}

/**
 * Lets all ranks go on, or none: what went wrong on one before they met is thrown there, and on the others as an
 * error that names it.
 *
 * @param error what this rank's preparation threw
 * @throws the error, or CommError; those of all ranks but one are marked as reported.
 */
export async function agreeToStart(group: ProcessGroup, error: unknown): Promise<void> {
  const text = error === undefined ? null : error instanceof Error ? error.message : String(error);
  const failed = await group.gather("preparation", text);
  const first = failed.findIndex((message) => message !== null);
  if (first < 0) return;
  const theirs = new CommError(`rank ${first} cannot start: ${failed[first]}`, { rank: first });
  // A missing file is missing everywhere: the same text once. What is a rank's own trouble it tells itself.
  const same = error !== undefined && failed.indexOf(text) < group.rank;
  const thrown = error ?? theirs;
  if (same || error === undefined) markReported(thrown);
  throw thrown;
}

function namesOf(ranks: readonly number[]): string {
  const few = ranks.length > 8 ? [...ranks.slice(0, 7), `… (${ranks.length} in all)`] : ranks;
  return `rank${ranks.length > 1 ? "s" : ""} ${few.join(", ")}`;
}

function digest(value: unknown): string {
  return createHash("sha256")
    .update(JSON.stringify(value) ?? "")
    .digest("hex")
    .slice(0, 16);
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "unset";
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
