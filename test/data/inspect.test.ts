import assert from "node:assert/strict";
import { test } from "node:test";
import { inspectPreferenceData, inspectSftData } from "#src/data/inspect.js";
import { fixture } from "../support/paths.js";
import { collect, dataConfig, dataError, folderOf } from "./support.js";

const zephyr = fixture("data", "zephyr");
const rows = [
  {
    id: "first",
    prompt: "Hi",
    chosen: [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Yo" },
    ],
    rejected: [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "" },
    ],
  },
  { id: 2, prompt: "a long prompt of several words", chosen: " with an answer", rejected: " x" },
  { prompt: "p", chosen: " q", rejected: " r" },
];

test("inspect: texts, ids, labels, what was cut and the row's id, in file order", async (t) => {
  const baseDir = await folderOf(t, { "train.jsonl": rows });
  const config = dataConfig({
    datasetMixer: { "train.jsonl": 1 },
    maxLength: 24,
    maxPromptLength: 8,
  });
  const all = await collect(
    inspectPreferenceData(config, { modelDir: zephyr, baseDir, split: "train" }),
  );
  assert.equal(all.length, 3);
  const [first, second, third] = all;
  assert.equal(first?.id, "first");
  assert.equal(first?.prompt, "<|system|>\n</s>\n<|user|>\nHi</s>\n");
  assert.equal(first?.chosen, "<|assistant|>\nYo</s>\n");
  assert.equal(first?.rejected, "<|assistant|>\n</s>\n");
  assert.equal(second?.id, 2);
  assert.ok(third !== undefined && !("id" in third) && !("dropped" in third));
  assert.deepEqual(third.truncated, []);
  assert.equal(third.chosen_input_ids.length, third.chosen_labels.length);
  assert.equal(third.chosen_input_ids[0], 1);
  assert.equal(third.chosen_labels[0], -100);
  assert.equal(third.rejected_labels.at(-1), 2);
});

test("inspect: rows that training leaves out appear, marked, with what is left of them", async (t) => {
  const baseDir = await folderOf(t, { "train.jsonl": rows });
  const config = dataConfig({
    datasetMixer: { "train.jsonl": 1 },
    maxLength: 6,
    maxPromptLength: 6,
  });
  const all = await collect(
    inspectPreferenceData(config, { modelDir: zephyr, baseDir, split: "train" }),
  );
  assert.deepEqual(
    all.map(({ dropped }) => dropped ?? false),
    [true, true, false],
  );
  assert.deepEqual(all[1]?.truncated, ["prompt", "chosen", "rejected"]);
  assert.equal(all[1]?.chosen_input_ids.length, 6);
  assert.ok(all[1]?.chosen_labels.every((label) => label === -100));
});

test("inspect: what it writes is read back as the same rows, with or without a tokenizer", async (t) => {
  const baseDir = await folderOf(t, { "train.jsonl": rows });
  const config = dataConfig({
    datasetMixer: { "train.jsonl": 1 },
    maxLength: 24,
    maxPromptLength: 8,
  });
  const written = await collect(
    inspectPreferenceData(config, { modelDir: zephyr, baseDir, split: "train" }),
  );
  const second = await folderOf(t, { "train.jsonl": written });
  const again = await collect(
    inspectPreferenceData(config, { modelDir: "/nowhere", baseDir: second, split: "train" }),
  );
  assert.deepEqual(again, written);

  const bare = await folderOf(t, {
    "train.jsonl": written.map(({ prompt: _p, chosen: _c, rejected: _r, ...row }) => row),
  });
  const decoded = await collect(
    inspectPreferenceData(config, { modelDir: zephyr, baseDir: bare, split: "train" }),
  );
  assert.equal(decoded[2]?.prompt, "<s> p");
  assert.match(decoded[2]?.chosen ?? "", /^q<\/s>$/);
  const silent = await collect(
    inspectPreferenceData(config, { modelDir: "/nowhere", baseDir: bare, split: "train" }),
  );
  assert.equal(silent[2]?.prompt, null);
  assert.deepEqual(silent[2]?.chosen_input_ids, written[2]?.chosen_input_ids);
});

test("inspect: it reads no further than asked, and the test split on request", async (t) => {
  const good = JSON.stringify(rows[2]);
  const baseDir = await folderOf(t, {
    "d/train.jsonl": `${good}\n{broken\n`,
    "d/test.jsonl": `${good}\n`,
  });
  const config = dataConfig({ datasetMixer: { d: 1 } });
  const options = { modelDir: zephyr, baseDir, split: "train" } as const;
  for await (const row of inspectPreferenceData(config, options)) {
    assert.equal(row.prompt, "p");
    break;
  }
  await assert.rejects(
    collect(inspectPreferenceData(config, options)),
    dataError(/train\.jsonl:2:2: malformed JSON/),
  );
  const heldOut = await collect(inspectPreferenceData(config, { ...options, split: "test" }));
  assert.equal(heldOut.length, 1);
});

test("inspect: rows for sft", async (t) => {
  const baseDir = await folderOf(t, {
    "train.jsonl": [
      { id: 1, messages: [{ role: "user", content: "Hi" }] },
      { text: "one two three four five six seven eight nine ten" },
      { input_ids: [1, 2] },
      { input_ids: [2] },
    ],
  });
  const config = dataConfig({ datasetMixer: { "train.jsonl": 1 }, maxLength: 20 });
  const all = await collect(inspectSftData(config, { modelDir: zephyr, baseDir, split: "train" }));
  assert.equal(all[0]?.id, 1);
  assert.equal(all[0]?.text, "<|system|>\n</s>\n<|user|>\nHi</s>\n");
  assert.deepEqual(all[1]?.truncated, ["text"]);
  assert.equal(all[1]?.input_ids.length, 20);
  assert.deepEqual(all[1]?.labels, all[1]?.input_ids);
  assert.equal(all[2]?.text, "<s></s>");
  assert.equal(all[3]?.dropped, true);
});

test("inspect: both semantics of a pair, and why one of them refuses it", async (t) => {
  const system = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Hi" },
  ];
  const turns = (prompt: typeof system) => ({
    chosen: [...prompt, { role: "assistant", content: "Yo" }],
    rejected: [...prompt, { role: "assistant", content: "Hello" }],
  });
  const tokenized = { chosen_input_ids: [1, 5], chosen_labels: [-100, 5] };
  const baseDir = await folderOf(t, {
    "train.jsonl": [
      turns(system.slice(1)),
      turns(system),
      { ...tokenized, rejected_input_ids: [1, 6], rejected_labels: [-100, 6] },
      turns([...system.slice(1), ...system.slice(1)]),
    ],
  });
  const config = dataConfig({
    datasetMixer: { "train.jsonl": 1 },
    maxLength: 64,
    maxPromptLength: 32,
  });
  const notices: string[] = [];
  const modelDir = fixture("data", "mistral");
  const options = { modelDir, baseDir, split: "train", both: true } as const;
  const all = await collect(
    inspectPreferenceData(config, { ...options, onNotice: (notice) => notices.push(notice) }),
  );
  const [first, second, third, fourth] = all;
  assert.equal(first?.data_semantics, "reference");
  assert.equal(first?.prompt, "[INST] Hi [/INST]");
  assert.equal(first?.chosen, " Yo </s>");
  assert.ok(first?.corrected !== undefined && "prompt" in first.corrected);
  assert.equal(first.corrected.prompt, "<s>[INST] Hi[/INST]");
  assert.equal(first.corrected.chosen, " Yo</s>");
  assert.equal(first.corrected.chosen_labels.filter((label) => label === 2).length, 1);
  // The template writes the system message before the last turn, if that is the user's.
  assert.ok(second?.corrected !== undefined && "prompt" in second.corrected);
  assert.equal(second.corrected.prompt, "<s>[INST] Be brief.\n\nHi[/INST]");
  assert.equal(second.corrected.chosen, " Yo</s>");
  assert.ok(fourth?.corrected !== undefined && "error" in fourth.corrected);
  assert.match(
    fourth.corrected.error,
    /refuses the messages \(user, user, assistant\): Turns must/,
  );
  assert.equal(third?.corrected, undefined);
  assert.match(notices.join("\n"), /has "mistral" in it, so pairs are rendered by the reference's/);

  const other = dataConfig({
    ...config,
    dataSemantics: "corrected",
    datasetMixer: config.datasetMixer,
  });
  for await (const row of inspectPreferenceData(other, options)) {
    assert.equal(row.data_semantics, "corrected");
    assert.equal(row.prompt, "<s>[INST] Hi[/INST]");
    assert.ok(row.reference !== undefined && "chosen" in row.reference);
    assert.equal(row.reference.chosen, " Yo </s>");
    break;
  }
});
