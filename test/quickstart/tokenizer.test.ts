import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";
import { root } from "../support/paths.js";
import { script } from "./scripts.js";

const { trainBpe } = await script("bpe.mjs");
const { tokenizerConfig, tokenizerJson } = await script("tokenizer.mjs");
const { trainTokenizer, VOCAB_SIZE } = await script("train-tokenizer.mjs");
const { corpus } = await script("make-data.mjs");

const model = path.join(root, "configs", "quickstart", "model");
const readJson = (file: string): object =>
  JSON.parse(readFileSync(path.join(model, file), "utf8")) as object;

function tokenizer(json: object): {
  encode(text: string): number[];
  decode(ids: number[]): string;
} {
  const inner = new Tokenizer(json, tokenizerConfig);
  return {
    encode: (text) => inner.encode(text, { add_special_tokens: false }).ids,
    decode: (ids) => inner.decode(ids, { skip_special_tokens: false }),
  };
}

const special = ["<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];

test("bpe: merges the most frequent neighbours first, ties in code-unit order", () => {
  // Words: ab 1, Ġab 1, Ġxy 3, Ġabc 3. "ab" stands in 5; then of Ġ+xy, x+y, Ġ+ab the last in 4;
  // then x+y, Ġ+x and Ġab+c in 3 each: U+0078 comes before U+0120.
  const { vocab, merges } = trainBpe(["ab ab xy xy xy abc abc abc"], 256 + 4);
  assert.deepEqual(merges, [
    ["a", "b"],
    ["Ġ", "ab"],
    ["x", "y"],
    ["Ġ", "xy"],
  ]);
  assert.deepEqual(vocab.slice(256), ["ab", "Ġab", "xy", "Ġxy"]);
});

test("bpe: stops when no pair of neighbours occurs twice", () => {
  const { vocab, merges } = trainBpe(["ab cd"], 400);
  assert.deepEqual(merges, []);
  assert.equal(vocab.length, 256);
});

test("tokenizer: the committed files are what train-tokenizer.mjs writes", () => {
  assert.deepEqual(readJson("tokenizer.json"), trainTokenizer());
  assert.deepEqual(readJson("tokenizer_config.json"), tokenizerConfig);
});

test("tokenizer: every text comes back from its ids, in bytes the training text never had too", () => {
  const { encode, decode } = tokenizer(readJson("tokenizer.json"));
  const texts = [
    "What is 7 + 25?",
    "  spaces   and\ttabs\n\nand lines ",
    "héllo wörld, 日本語, emoji 🎉👩‍👩‍👧, \u0000\u007f",
    "a<|end|><|user|>b",
  ];
  for (const text of texts) assert.equal(decode(encode(text)), text);
});

test("tokenizer: ids are the vocabulary's, special tokens first, each one id", () => {
  const { encode } = tokenizer(readJson("tokenizer.json"));
  assert.deepEqual(special.map(encode), [[0], [1], [2], [3], [4]]);
  const seen = new Set<number>();
  let row = 0;
  for (const { messages } of corpus("train")) {
    for (const message of messages) for (const id of encode(message.content)) seen.add(id);
    if (++row === 2000) break;
  }
  assert.ok(Math.max(...seen) < VOCAB_SIZE);
  assert.ok(seen.size > 150, `${seen.size} tokens in use`);
});

test("tokenizer: a digit is a token of its own, so that arithmetic sees digits", () => {
  const { encode } = tokenizer(readJson("tokenizer.json"));
  assert.equal(encode("1234567890").length, 10);
  assert.equal(encode(" 42").length, 3);
});

test("tokenizer: a small vocabulary gives the ids worked out by hand", () => {
  const bpe = trainBpe(["ab ab ab abab abab"], 256 + 3);
  const { encode } = tokenizer(tokenizerJson(bpe));
  const id = (token: string): number => special.length + bpe.vocab.indexOf(token);
  // Merges in order of rank: a+b, then Ġ+ab (4 words), then ab at both ends of "abab".
  assert.deepEqual(bpe.merges, [
    ["a", "b"],
    ["Ġ", "ab"],
    ["Ġab", "ab"],
  ]);
  assert.deepEqual(encode("ab abab ba"), [id("ab"), id("Ġabab"), id("Ġ"), id("b"), id("a")]);
});

test("chat template: BOS once, each message ends in one EOS, and a prompt can be opened", () => {
  const render = (messages: object[], add_generation_prompt = false): string =>
    new Template(tokenizerConfig.chat_template).render({
      messages,
      add_generation_prompt,
      bos_token: "<|bos|>",
      eos_token: "<|end|>",
    });
  const user = { role: "user", content: "Hi" };
  const assistant = { role: "assistant", content: "Yo" };
  const chat = "<|bos|><|user|>Hi<|end|><|assistant|>Yo<|end|>";
  assert.equal(render([user, assistant]), chat);
  assert.equal(render([user], true), "<|bos|><|user|>Hi<|end|><|assistant|>");
  assert.equal(
    render([{ role: "system", content: "Be brief." }, user]),
    "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|>",
  );
  assert.equal(
    tokenizer(readJson("tokenizer.json"))
      .encode(chat)
      .filter((id) => id < 5).length,
    5,
  );
});
