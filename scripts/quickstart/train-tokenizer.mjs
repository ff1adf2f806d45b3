// Trains the quickstart's tokenizer on the user and assistant texts of the base model's corpus.
//
//   node scripts/quickstart/train-tokenizer.mjs
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { trainBpe } from "./bpe.mjs";
import { corpus } from "./make-data.mjs";
import { isMain, modelDir } from "./paths.mjs";
import { specialTokens, tokenizerConfig, tokenizerJson } from "./tokenizer.mjs";

export const VOCAB_SIZE = 512;

/** Rows of the corpus to count words in; more would not change the frequent ones. */
const ROWS = 20_000;

/** @returns {Record<string, unknown>} contents of tokenizer.json */
export function trainTokenizer() {
  const texts = [];
  for (const { messages } of corpus("train")) {
    if (texts.length >= 2 * ROWS) break;
    texts.push(...messages.map((message) => message.content));
  }
  return tokenizerJson(trainBpe(texts, VOCAB_SIZE - specialTokens.length));
}

/** @param {string} file @param {unknown} value */
function writeJson(file, value) {
  writeFileSync(path.join(modelDir, file), `${JSON.stringify(value, null, 1)}\n`);
  console.log(`wrote ${path.join(modelDir, file)}`);
}

if (isMain(import.meta.url)) {
  mkdirSync(modelDir, { recursive: true });
  writeJson("tokenizer.json", trainTokenizer());
  writeJson("tokenizer_config.json", tokenizerConfig);
}
