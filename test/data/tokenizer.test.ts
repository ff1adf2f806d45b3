import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { loadTokenizer } from "#src/data/tokenizer.js";
import { fixture } from "../support/paths.js";
import { dataError, folderOf } from "./support.js";

const definition = readFileSync(fixture("data", "zephyr", "tokenizer.json"), "utf8");

test("tokenizer: special tokens come from the config as text or {content}, then from the map", async (t) => {
  const folder = await folderOf(t, {
    "tokenizer.json": definition,
    "tokenizer_config.json": JSON.stringify({ bos_token: { content: "<s>" }, unk_token: null }),
    "special_tokens_map.json": JSON.stringify({
      bos_token: "</s>",
      eos_token: { content: "</s>" },
      unk_token: "<unk>",
    }),
  });
  const tokenizer = await loadTokenizer(folder);
  assert.deepEqual(tokenizer.bos, { text: "<s>", id: 1 });
  assert.deepEqual(tokenizer.eos, { text: "</s>", id: 2 });
  assert.equal(tokenizer.padId, 2);
  assert.deepEqual(tokenizer.specialTokens, { bos_token: "<s>", eos_token: "</s>" });
});

test("tokenizer: a model without BOS says so, and its own pad token wins over EOS", async () => {
  const tokenizer = await loadTokenizer(fixture("data", "qwen2"));
  assert.equal(tokenizer.bos, null);
  assert.notEqual(tokenizer.padId, tokenizer.eos?.id);
  assert.equal(tokenizer.specialTokens.pad_token, "<|endoftext|>");
});

test("tokenizer: special tokens are added on request, ids decode to the text, no ids to none", async () => {
  const tokenizer = await loadTokenizer(fixture("data", "llama3"));
  const plain = tokenizer.encode("Hello, naïve 👍🏽", { addSpecialTokens: false });
  const special = tokenizer.encode("Hello, naïve 👍🏽", { addSpecialTokens: true });
  assert.deepEqual(special, [tokenizer.bos?.id, ...plain]);
  assert.equal(tokenizer.decode(special, { skipSpecialTokens: true }), "Hello, naïve 👍🏽");
  assert.equal(
    tokenizer.decode(Int32Array.from(special), { skipSpecialTokens: false }),
    "<|begin_of_text|>Hello, naïve 👍🏽",
  );
  assert.equal(tokenizer.decode([], { skipSpecialTokens: false }), "");
  assert.deepEqual(tokenizer.encode("", { addSpecialTokens: false }), []);
});

test("tokenizer: missing files are one error that names them", async (t) => {
  const none = await folderOf(t, {});
  await assert.rejects(
    loadTokenizer(none),
    dataError(
      /expected a tokenizer, found no tokenizer\.json and no tokenizer_config\.json$/,
      /tokenized already/,
    ),
  );
  const half = await folderOf(t, { "tokenizer.json": definition });
  await assert.rejects(loadTokenizer(half), dataError(/found no tokenizer_config\.json$/));
});

test("tokenizer: broken files and unknown special tokens are named", async (t) => {
  const broken = await folderOf(t, { "tokenizer.json": "{", "tokenizer_config.json": "{}" });
  await assert.rejects(
    loadTokenizer(broken),
    dataError(/tokenizer\.json: malformed JSON: /, /copy the file/),
  );
  const list = await folderOf(t, { "tokenizer.json": "[]", "tokenizer_config.json": "{}" });
  await assert.rejects(loadTokenizer(list), dataError(/tokenizer\.json: expected a JSON object$/));
  const kind = await folderOf(t, {
    "tokenizer.json": '{"model": {"type": "Crystal"}}',
    "tokenizer_config.json": "{}",
  });
  await assert.rejects(
    loadTokenizer(kind),
    dataError(/tokenizer\.json: this tokenizer cannot be loaded: /, /BPE/),
  );
  const unknown = await folderOf(t, {
    "tokenizer.json": definition,
    "tokenizer_config.json": '{"eos_token": "<|nowhere|>"}',
  });
  await assert.rejects(
    loadTokenizer(unknown),
    dataError(/eos_token is "<\|nowhere\|>", which is not in the vocabulary/, /same model/),
  );
});

test("tokenizer: an added token with single_word is pointed out", async (t) => {
  const changed = JSON.parse(definition) as { added_tokens: { single_word: boolean }[] };
  const token = changed.added_tokens[2];
  assert.ok(token !== undefined);
  token.single_word = true;
  const folder = await folderOf(t, {
    "tokenizer.json": JSON.stringify(changed),
    "tokenizer_config.json": "{}",
  });
  const { notices } = await loadTokenizer(folder);
  assert.match(notices.join("\n"), /added token "<\/s>" has "single_word": true/);
});
