// Rows of JSON Lines files, from bytes to packed micro-batches: preference pairs and plain text.
import assert from "node:assert/strict";
import path from "node:path";
import { defineConfig } from "../../dist/config/load.js";
import { readJson, readJsonl } from "../../dist/data/formats/jsonl.js";
import { packPairs, packSequences } from "../../dist/data/pack.js";
import { createPreparer } from "../../dist/data/prepare.js";
import { readPreferenceRow, readSftRow } from "../../dist/data/rows.js";
import { mutateBytes, mutateValue } from "./random.mjs";

export const extension = ".jsonl";
export const exitCode = 2;

const turns = (...texts) =>
  texts.map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));
const ids = [1, 5, 9, 2];
const ROWS = [
  {
    prompt: "Name a colour.",
    chosen: turns("Name a colour.", "Blue."),
    rejected: turns("Name a colour.", "No."),
  },
  {
    prompt: turns("Hi"),
    chosen: turns("Hi", "Hello!").slice(1),
    rejected: turns("Hi", "Go").slice(1),
  },
  { prompt: "2 + 2 = ", chosen: "4", rejected: "5", id: 7 },
  { chosen: "The sky is blue", rejected: "The sky is green" },
  {
    chosen_input_ids: ids,
    chosen_labels: [-100, -100, 9, 2],
    rejected_input_ids: [1, 5, 8],
    rejected_labels: [-100, -100, 8],
  },
  { input_ids: ids, labels: [-100, 5, 9, 2] },
  { messages: turns("Hi", "Hello", "More", "Sure") },
  { text: "Plain text 🙂 with é and \u2028." },
];
const DICTIONARY = [
  "\n",
  "\\u0000",
  '{"',
  "[[",
  "\u2028",
  "\ufeff",
  "\xff",
  "null",
  "1e999",
  "<|eot_id|>",
  "\\ud800",
];

export function generate(random) {
  // Mostly rows of one task, as a file holds them; the first five are pairs.
  const kinds = random.pick([ROWS.slice(0, 5), ROWS.slice(5), ROWS]);
  const changes = random.pick([0, 0.2, 0.7]);
  const lines = Array.from({ length: 1 + random.below(4) }, () => {
    const row = random.pick(kinds);
    const text = JSON.stringify(random.chance(changes) ? mutateValue(random, row) : row);
    return random.chance(0.02) ? "[".repeat(random.below(50000)) + text : text;
  });
  const bytes = Buffer.from(lines.join(random.chance(0.1) ? "\r\n" : "\n"));
  return random.chance(0.3) ? mutateBytes(random, bytes, DICTIONARY) : bytes;
}

const modelDir = path.join(import.meta.dirname, "../fixtures/data/llama3");
const { config } = defineConfig({
  modelNameOrPath: modelDir,
  datasetMixer: { "x.jsonl": 1 },
  maxLength: 64,
  maxPromptLength: 32,
});
const preparer = createPreparer(config, modelDir);
const corrected = createPreparer({ ...config, dataSemantics: "corrected" }, modelDir);

/** @param {string} task @param {import("#src/data/formats/index.js").RawRow} row */
function prepare(task, row) {
  if (task === "text") return preparer.sequence(readSftRow(row, "text"));
  return (task === "pairs" ? preparer : corrected).pair(readPreferenceRow(row));
}

export async function run(file) {
  let accepted = 0;
  for (const read of [readJsonl, readJson]) {
    for (const task of ["pairs", "corrected", "text"]) {
      const refused = await refusal(async () => {
        const members = [];
        for await (const row of read(file)) {
          const prepared = await prepare(task, row);
          if (!prepared.dropped) members.push(prepared.pair ?? prepared.sequence);
        }
        const pack = task === "text" ? packSequences : packPairs;
        const options = { maxTokens: 1 << 20, prefixSharing: true, where: (i) => `row ${i}` };
        for (const batch of pack(members, options)) assert.ok(batch.tokens.length > 0);
      });
      if (!refused) accepted++;
    }
  }
  return accepted > 0 ? "read" : "refused";
}

/** Whether this way of reading refuses the file; each may on its own. */
async function refusal(work) {
  try {
    await work();
    return false;
  } catch (error) {
    if (error.exitCode !== exitCode) throw error;
    assert.match(error.message, /:\d+/, "a refusal names its line");
    return true;
  }
}
