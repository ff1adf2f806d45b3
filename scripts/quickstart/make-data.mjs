// Writes the quickstart's preference pairs (configs/quickstart/data/train.jsonl and test.jsonl, kept in
// the repository) and, with --corpus, what its base model is trained on (outputs/, not kept).
//
//   node scripts/quickstart/make-data.mjs [--corpus]
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { corpusDir, dataDir, isMain } from "./paths.mjs";
import { Random } from "./random.mjs";
import { drawCorpusReply, drawReplies, drawTask, kinds } from "./tasks.mjs";

/** @typedef {import("./random.mjs").Random} Random */
/** @typedef {import("./tasks.mjs").Task} Task */
/** @typedef {{ role: string, content: string }[]} Messages */
/** @typedef {{ id: string, prompt: string, chosen: Messages, rejected: Messages }} Pair */

const PAIRS_PER_KIND = { train: 300, test: 24 };
const CORPUS_ROWS = 200_000;

/**
 * Preference pairs of one side with distinct prompts, the kinds taking turns. Rows of the test side
 * carry `answer` too, which the trainer ignores and `check` needs.
 * @param {"train" | "test"} side
 * @returns {(Pair & { answer?: string })[]}
 */
export function pairs(side) {
  const random = new Random(side === "train" ? 1 : 2);
  const names = Object.keys(kinds);
  const seen = new Set();
  return Array.from({ length: PAIRS_PER_KIND[side] * names.length }, (_, i) => {
    const task = drawNewTask(random, side, names[i % names.length], seen);
    const { chosen, rejected } = drawReplies(random, task);
    return {
      id: `${task.kind}-${i}`,
      prompt: task.prompt,
      chosen: chat(task.prompt, chosen),
      rejected: chat(task.prompt, rejected),
      ...(side === "test" ? { answer: task.answer } : {}),
    };
  });
}

/**
 * Chats for the base model, of the train side only. The test rows are of the train side too: they
 * show whether the corpus is learnt, and nothing of the held-out side is spent on it.
 * @param {"train" | "test"} split
 * @returns {Generator<{ messages: Messages }>}
 */
export function* corpus(split) {
  const random = new Random(split === "train" ? 3 : 4);
  for (let row = 0; row < (split === "train" ? CORPUS_ROWS : 512); row++) {
    const task = drawTask(random, "train");
    yield { messages: chat(task.prompt, drawCorpusReply(random, task)) };
  }
}

/** @param {Random} random @param {"train" | "test"} side @param {string} kind @param {Set<string>} seen */
function drawNewTask(random, side, kind, seen) {
  for (;;) {
    const task = drawTask(random, side, kind);
    if (seen.has(task.prompt)) continue;
    seen.add(task.prompt);
    return task;
  }
}

/** @param {string} user @param {string} assistant @returns {Messages} */
function chat(user, assistant) {
  return [
    { role: "user", content: user },
    { role: "assistant", content: assistant },
  ];
}

/** @param {Iterable<unknown>} rows @returns {string} one JSON object a line */
export function toJsonl(rows) {
  return Array.from(rows, (row) => `${JSON.stringify(row)}\n`).join("");
}

/** @param {string} folder @param {Record<string, Iterable<unknown>>} files */
function write(folder, files) {
  mkdirSync(folder, { recursive: true });
  for (const [name, rows] of Object.entries(files)) {
    writeFileSync(path.join(folder, name), toJsonl(rows));
    console.log(`wrote ${path.join(folder, name)}`);
  }
}

if (isMain(import.meta.url)) {
  write(dataDir, { "train.jsonl": pairs("train"), "test.jsonl": pairs("test") });
  if (process.argv.includes("--corpus")) {
    write(corpusDir, { "train.jsonl": corpus("train"), "test.jsonl": corpus("test") });
  }
}
