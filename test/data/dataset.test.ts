import assert from "node:assert/strict";
import { test } from "node:test";
import { loadPreferenceData, loadSftData } from "#src/data/dataset.js";
import { PairStore, SequenceStore } from "#src/data/store.js";
import type { TokenizedPair } from "#src/data/types.js";
import { fixture } from "../support/paths.js";
import { dataConfig, dataError, folderOf } from "./support.js";

const zephyr = fixture("data", "zephyr");
const tokens = (chosen: number[], rejected: number[], scoredFrom = 1) => ({
  chosen_input_ids: chosen,
  chosen_labels: chosen.map((id, i) => (i < scoredFrom ? -100 : id)),
  rejected_input_ids: rejected,
  rejected_labels: rejected.map((id, i) => (i < scoredFrom ? -100 : id)),
});

/** A recipe that keeps the order of its files. */
const filesInOrder = (values: Parameters<typeof dataConfig>[0] = {}) =>
  dataConfig({ shuffle: false, ...values });

const arrays = ({ chosen, rejected }: TokenizedPair) =>
  [chosen.ids, chosen.labels, rejected.ids, rejected.labels].map((part) => Array.from(part));

test("store: what goes in comes out, whatever the labels, over many chunks", () => {
  const store = new SequenceStore();
  const all = Array.from({ length: 300 }, (_, n) => {
    const ids = Int32Array.from(
      { length: n === 7 ? 2_000_000 : 1 + ((n * 977) % 3000) },
      (_, i) => i ^ n,
    );
    const labels = ids.map((id, i) => ((i * 31 + n) % 7 < 3 ? -100 : id));
    store.append({ ids, labels }, `dir/file${n % 2}.jsonl:${n + 1}`);
    return { ids, labels };
  });
  assert.equal(store.length, 300);
  for (const [i, sequence] of all.entries()) {
    assert.deepEqual(store.sequence(i), sequence);
    assert.equal(store.tokens(i), sequence.ids.length);
    assert.equal(store.where(i), `dir/file${i % 2}.jsonl:${i + 1}`);
  }
  assert.throws(() => store.sequence(300), RangeError);
});

test("store: tokens take four bytes and views share their buffer", () => {
  const store = new PairStore();
  const ids = Int32Array.from({ length: 1000 }, (_, i) => i);
  const sequence = { ids, labels: ids.slice().fill(-100, 0, 500) };
  for (let i = 0; i < 4000; i++) store.append({ chosen: sequence, rejected: sequence }, "a:1");
  assert.equal(store.length, 4000);
  const bytesPerToken = store.bytes / 8e6;
  assert.ok(bytesPerToken >= 4 && bytesPerToken < 4.8, `${bytesPerToken} bytes per token`);
  assert.equal(store.pair(0).chosen.ids.buffer, store.pair(1).rejected.ids.buffer);
});

test("dataset: tokenized rows need no tokenizer and no length limits", async (t) => {
  const folder = await folderOf(t, {
    "d/train.jsonl": [tokens([1, 5, 6], [1, 7]), tokens([3, 4], [3, 8, 9], 1)],
    "d/test.jsonl": [tokens([1, 2], [1, 3])],
  });
  const data = await loadPreferenceData(filesInOrder({ datasetMixer: { d: 1 }, maxLength: 1 }), {
    modelDir: "/nowhere",
    baseDir: folder,
    needTest: true,
  });
  assert.equal(data.train.length, 2);
  assert.deepEqual(arrays(data.train.pair(0)), [
    [1, 5, 6],
    [-100, 5, 6],
    [1, 7],
    [-100, 7],
  ]);
  assert.match(data.train.where(1), /d\/train\.jsonl:2$/);
  assert.equal(data.test.length, 1);
  assert.deepEqual(data.notices, []);
});

test("dataset: rows without a token to score are left out and counted, identical pairs kept", async (t) => {
  const folder = await folderOf(t, {
    "train.jsonl": [
      tokens([1, 5], [1, 6]),
      tokens([1, 5], [1, 6], 2), // nothing is scored
      tokens([5], [5], 0), // only index 0
      tokens([1, 5], [1, 5]), // identical
    ],
  });
  const data = await loadPreferenceData(filesInOrder({ datasetMixer: { "train.jsonl": 1 } }), {
    modelDir: "/nowhere",
    baseDir: folder,
    needTest: true,
  });
  assert.equal(data.train.length, 2);
  assert.match(data.train.where(1), /train\.jsonl:4$/);
  assert.deepEqual(data.counts.train, { rows: 4, dropped: 2, truncated: 0, identical: 1 });
  const text = data.notices.join("\n");
  assert.match(
    text,
    /^2 of 4 train pairs left out: .* \(first: .*train\.jsonl:2\); raise max_length or lower/m,
  );
  assert.match(text, /^1 of 4 train pairs have the same tokens as chosen and as rejected/m);
  assert.match(text, /^there are no test rows/m);
});

test("dataset: unset limits are 512 and 128, with a notice; rows that were cut are counted", async (t) => {
  const long = (n: number): string => "word ".repeat(n);
  const folder = await folderOf(t, {
    "train.jsonl": [
      { prompt: long(700), chosen: "yes", rejected: "no" },
      { prompt: "short", chosen: "yes", rejected: "no" },
    ],
  });
  const data = await loadPreferenceData(filesInOrder({ datasetMixer: { "train.jsonl": 1 } }), {
    modelDir: zephyr,
    baseDir: folder,
    needTest: false,
  });
  const first = data.train.pair(0).chosen;
  assert.equal(
    first.labels.findIndex((label) => label !== -100),
    128,
  );
  assert.deepEqual(data.counts.train, { rows: 2, dropped: 0, truncated: 1, identical: 0 });
  const text = data.notices.join("\n");
  assert.match(text, /^max_length is not set: sequences are cut to 512 tokens$/m);
  assert.match(text, /^max_prompt_length is not set: .* cut to 128 tokens$/m);
  assert.match(text, /^1 of 2 train pairs were cut to the length limits$/m);
  assert.equal(data.test.length, 0);
});

test("dataset: no pair left is an error that says why", async (t) => {
  const folder = await folderOf(t, {
    "train.jsonl": [{ prompt: "a b c d e f", chosen: "x y z", rejected: "q" }],
    "empty/train.jsonl": "",
  });
  const options = { modelDir: zephyr, baseDir: folder, needTest: false };
  await assert.rejects(
    loadPreferenceData(
      filesInOrder({ datasetMixer: { "train.jsonl": 1 }, maxLength: 5, maxPromptLength: 5 }),
      options,
    ),
    dataError(
      /^dataset_mixer: all 1 train pairs were left out: no token to score/,
      /^raise max_length or lower max_prompt_length$/,
    ),
  );
  await assert.rejects(
    loadPreferenceData(filesInOrder({ datasetMixer: { empty: 1 } }), options),
    dataError(/^dataset_mixer: expected rows to train on, found none in empty$/, /train split/),
  );
  await assert.rejects(
    loadPreferenceData(filesInOrder(), options),
    dataError(/found none in an empty mixer$/),
  );
});

test("dataset: a missing tokenizer is an error once a row needs it", async (t) => {
  const folder = await folderOf(t, {
    "train.jsonl": [{ prompt: "a", chosen: "b", rejected: "c" }],
  });
  await assert.rejects(
    loadPreferenceData(filesInOrder({ datasetMixer: { "train.jsonl": 1 } }), {
      modelDir: folder,
      baseDir: folder,
      needTest: false,
    }),
    dataError(/expected a tokenizer, found no tokenizer\.json and no tokenizer_config\.json/),
  );
});

test("dataset: sft reads conversations, text and tokens, and tells progress", async (t) => {
  const folder = await folderOf(t, {
    "d/train.jsonl": [
      {
        messages: [
          { role: "user", content: "Hi" },
          { role: "assistant", content: "Yo" },
        ],
      },
      { text: "plain" },
      { input_ids: [4, 5, 6], labels: [-100, 5, -100] },
      { input_ids: [4] },
    ],
    "d/test.jsonl": [{ text: "held out" }],
  });
  const progress: string[] = [];
  const data = await loadSftData(filesInOrder({ datasetMixer: { d: 1 }, maxLength: 40 }), {
    modelDir: zephyr,
    baseDir: folder,
    needTest: true,
    onProgress: ({ pool, rows }) => progress.push(`${pool} ${rows}`),
  });
  assert.equal(data.train.length, 3);
  assert.equal(data.test.length, 1);
  assert.deepEqual(Array.from(data.train.sequence(2).labels), [-100, 5, -100]);
  const plain = data.train.sequence(1);
  assert.equal(plain.ids[0], 1); // BOS, from the post-processor
  assert.equal(plain.ids.at(-1), 2); // EOS
  assert.deepEqual(data.counts.train, { rows: 4, dropped: 1, truncated: 0, identical: 0 });
  assert.match(data.notices.join("\n"), /^1 of 4 train sequences left out: .*; raise max_length$/m);
  assert.ok(progress.includes("train 4") && progress.includes("test 1"));
});

test("dataset: the event loop runs while a large file is read", async (t) => {
  const rows = Array.from({ length: 3000 }, (_, i) => ({
    prompt: `Question ${i}: ${"more words ".repeat(10)}`,
    chosen: " yes, that is so",
    rejected: " no",
  }));
  const folder = await folderOf(t, { "train.jsonl": rows });
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, 5);
  try {
    const data = await loadPreferenceData(
      filesInOrder({ datasetMixer: { "train.jsonl": 1 }, maxLength: 512, maxPromptLength: 128 }),
      { modelDir: zephyr, baseDir: folder, needTest: false },
    );
    assert.equal(data.train.length, 3000);
  } finally {
    clearInterval(timer);
  }
  assert.ok(ticks >= 3, `${ticks} ticks`);
});

test("dataset: under corrected semantics nobody is told of max_prompt_length", async (t) => {
  const folder = await folderOf(t, {
    "train.jsonl": [{ prompt: "a b", chosen: "x", rejected: "y" }],
  });
  const config = filesInOrder({
    datasetMixer: { "train.jsonl": 1 },
    dataSemantics: "corrected",
    maxLength: 1,
  });
  await assert.rejects(
    loadPreferenceData(config, { modelDir: zephyr, baseDir: folder, needTest: false }),
    dataError(
      /^dataset_mixer: all 1 train pairs were left out: no token to score/,
      /^raise max_length$/,
    ),
  );
});
