import path from "node:path";
import type { TestContext } from "node:test";
import { fixture } from "../support/paths.js";
import { readLines, runCli, temporaryFolder, writeLines } from "../train/support.js";

export { gqaModel, readLines, runCli, temporaryFolder, writeLines } from "../train/support.js";

/** A file of the fixture `llama-gqa`, as JSON lines. */
export function gqaLines<T>(name: string): T[] {
  return readLines<T>(fixture("model", "llama-gqa", name));
}

/** Values of an async iterable. */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of source) values.push(value);
  return values;
}

/** Runs `score` or `generate` on rows through the command line and reads what `--out` wrote. */
export async function runOnRows<T>(
  t: TestContext,
  command: "score" | "generate",
  model: string,
  rows: readonly unknown[],
  words: readonly string[] = [],
): Promise<{ code: number | null; stderr: string; stdout: string; file: string; results: T[] }> {
  const folder = temporaryFolder(t);
  const file = writeLines(path.join(folder, "rows.jsonl"), rows);
  const out = path.join(folder, "out.jsonl");
  const input = command === "score" ? "--input" : "--prompts";
  const ended = await runCli([command, "--model", model, input, file, "--out", out, ...words]);
  const results = ended.code === 0 ? readLines<T>(out) : [];
  return { ...ended, file, results };
}
