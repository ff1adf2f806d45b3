import assert from "node:assert/strict";
import { test } from "node:test";
import { readPreferenceRow, readSftRow, splitImplicitPrompt } from "#src/data/rows.js";
import { dataError } from "./support.js";

const read = (value: Record<string, unknown>) =>
  readPreferenceRow({ file: "prefs.jsonl", line: 12, value });
const sft = (value: Record<string, unknown>, column = "text") =>
  readSftRow({ file: "sft.jsonl", line: 3, value }, column);
const user = { role: "user", content: "q" };
const assistant = { role: "assistant", content: "a" };

test("rows: strings with a prompt stand as they are, other columns are ignored", () => {
  assert.deepEqual(read({ prompt: "p", chosen: "c", rejected: "r", score: 1, messages: 5 }), {
    where: "prefs.jsonl:12",
    kind: "text",
    prompt: "p",
    chosen: "c",
    rejected: "r",
  });
});

test("rows: strings without a prompt share their common beginning, as in TRL", () => {
  const cases: [string, string, [string, string, string]][] = [
    ["Q? A: 2", "Q? A: 3", ["Q? A:", " 2", " 3"]], // the space goes to the responses
    ["abX", "abY", ["ab", "X", "Y"]],
    ["abc", "abc def", ["ab", "c", "c def"]], // one begins with the other
    ["same", "same", ["sam", "e", "e"]],
    ["x ", "y ", ["", "x ", "y "]],
    ["", "x", ["", "", "x"]],
    ["😀", "😁", ["", "😀", "😁"]], // never half a surrogate pair
  ];
  for (const [chosen, rejected, [prompt, a, b]] of cases) {
    assert.deepEqual(splitImplicitPrompt(chosen, rejected), { prompt, chosen: a, rejected: b });
  }
  const row = read({ prompt: null, chosen: "abX", rejected: "abY" });
  assert.ok(row.kind === "text" && row.prompt === "ab");
});

test("rows: a prompt of messages is used as it is; otherwise it is chosen without its last turn", () => {
  const explicit = read({
    id: 7,
    prompt: [user],
    chosen: [assistant],
    rejected: [user, assistant],
  });
  assert.deepEqual(explicit, {
    where: "prefs.jsonl:12",
    id: 7,
    kind: "conversation",
    prompt: [user],
    chosen: [assistant],
    rejected: [user, assistant],
  });
  const implicit = read({ prompt: "q", chosen: [user, assistant], rejected: [assistant] });
  assert.ok(implicit.kind === "conversation");
  assert.deepEqual(implicit.prompt, [user]);
  assert.deepEqual(implicit.chosen, [assistant]);
  assert.deepEqual(implicit.rejected, [assistant]);
});

test("rows: tokenized columns win and carry their texts along", () => {
  const row = read({
    id: "x",
    prompt: "p",
    chosen: "c",
    rejected: [user],
    chosen_input_ids: [1, 5],
    chosen_labels: [-100, 5],
    rejected_input_ids: [1, 6, 2],
    rejected_labels: [-100, -100, 2],
    truncated: ["prompt"],
  });
  assert.ok(row.kind === "tokens");
  assert.deepEqual(row.pair.chosen, {
    ids: Int32Array.of(1, 5),
    labels: Int32Array.of(-100, 5),
  });
  assert.deepEqual(Array.from(row.pair.rejected.labels), [-100, -100, 2]);
  assert.deepEqual(row.texts, { prompt: "p", chosen: "c" });
  assert.deepEqual(row.truncated, ["prompt"]);
});

test("rows: wrong columns are named by file, line and column", () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{}, /^prefs\.jsonl:12: chosen: expected a string or a list of .*, found nothing$/],
    [{ chosen: "a" }, /: rejected: expected a string or a list .*, found nothing$/],
    [{ chosen: 5, rejected: "b" }, /: chosen: expected .*, found number 5$/],
    [
      { chosen: "a", rejected: [user] },
      /: rejected: expected a string, as chosen is, found a list$/,
    ],
    [
      { chosen: [user], rejected: "b" },
      /: rejected: expected a list .*, as chosen is, found string/,
    ],
    [{ prompt: [user], chosen: "a", rejected: "b" }, /: prompt: expected a string, as chosen/],
    [
      { prompt: 3, chosen: [user, assistant], rejected: [assistant] },
      /: prompt: expected a string or a list .*, found number 3$/,
    ],
    [
      { chosen: [user, "a"], rejected: [assistant] },
      /: chosen\[1\]: expected .*, found string "a"$/,
    ],
    [
      { chosen: [user, { role: "assistant", content: null }], rejected: [assistant] },
      /: chosen\[1\]\.content: expected a string, found null$/,
    ],
    [
      { chosen: [user, assistant], rejected: [{ content: "x" }] },
      /: rejected\[0\]\.role: expected a string, found nothing$/,
    ],
    [{ chosen: [assistant], rejected: [assistant] }, /: chosen: expected the prompt's messages/],
    [{ chosen: [user, assistant], rejected: [] }, /: rejected: expected at least one message/],
    [
      { prompt: [], chosen: [assistant], rejected: [assistant] },
      /: prompt: expected at least one message, found an empty list$/,
    ],
  ];
  for (const [value, message] of cases) assert.throws(() => read(value), dataError(message, /./));
});

test("rows: tokenized columns must be complete, whole numbers, and labels the ids or -100", () => {
  const good = {
    chosen_input_ids: [1, 5],
    chosen_labels: [-100, 5],
    rejected_input_ids: [1, 6],
    rejected_labels: [-100, 6],
  };
  const cases: [Record<string, unknown>, RegExp][] = [
    [
      { rejected_labels: undefined },
      /: rejected_labels: expected a list of labels, found nothing$/,
    ],
    [{ chosen_input_ids: "1 5" }, /: chosen_input_ids: expected a list of token ids, found string/],
    [
      { chosen_input_ids: [1, 1.5] },
      /: chosen_input_ids\[1\]: expected a token id .* found number 1\.5$/,
    ],
    [{ rejected_input_ids: [-1, 6] }, /: rejected_input_ids\[0\]: expected a token id/],
    [{ chosen_labels: [5] }, /: chosen_labels: expected 2 labels, one per token, found 1$/],
    [
      { chosen_labels: [-100, 6] },
      /: chosen_labels\[1\]: expected -100 or the token's own id 5, found number 6$/,
    ],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => read({ ...good, ...change }), dataError(message, /./));
  }
  assert.equal(read(good).kind, "tokens");
});

test("rows: sft reads input_ids, then messages, then the text column", () => {
  const tokens = sft({ input_ids: [4, 5], messages: [user], text: "t" });
  assert.ok(tokens.kind === "tokens");
  assert.deepEqual(tokens.sequence.labels, tokens.sequence.ids);
  const labelled = sft({ input_ids: [4, 5], labels: [-100, 5] });
  assert.ok(labelled.kind === "tokens");
  assert.deepEqual(Array.from(labelled.sequence.labels), [-100, 5]);
  assert.equal(sft({ messages: [user], text: "t" }).kind, "conversation");
  const text = sft({ story: "once" }, "story");
  assert.ok(text.kind === "text" && text.text === "once");
});

test("rows: sft names what a row lacks", () => {
  assert.throws(
    () => sft({ body: "x", title: "y" }),
    dataError(
      /^sft\.jsonl:3: expected a column messages .*, text .* or input_ids, found columns: body, title$/,
      /text_column/,
    ),
  );
  assert.throws(
    () => sft({ messages: [] }),
    dataError(/: messages: expected at least one message/),
  );
  assert.throws(
    () => sft({ messages: [{ role: "user" }] }),
    dataError(/: messages\[0\]\.content: expected a string, found nothing$/),
  );
  assert.throws(
    () => sft({ input_ids: [1, 2], labels: [-100] }),
    dataError(/: labels: expected 2 labels/),
  );
});
