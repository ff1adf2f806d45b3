import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";
import { script } from "./scripts.js";

const { corpus, pairs, toJsonl } = await script("make-data.mjs");
const { check, kinds } = await script("tasks.mjs");

const data = path.join(root, "configs", "quickstart", "data");

for (const side of ["train", "test"] as const) {
  test(`data: the committed ${side}.jsonl is what make-data.mjs writes`, () => {
    const committed = readFileSync(path.join(data, `${side}.jsonl`), "utf8");
    // Compared as a boolean: a diff of two megabyte strings would tell nobody anything.
    assert.ok(committed === toJsonl(pairs(side)), "run: node scripts/quickstart/make-data.mjs");
  });
}

test("data: a few thousand pairs to train on, at least 200 to test, and small files", () => {
  assert.ok(pairs("train").length >= 3000);
  assert.ok(pairs("test").length >= 200);
  assert.ok(statSync(path.join(data, "train.jsonl")).size < 1.5e6);
});

test("data: a pair is a prompt string and two chats that open with it, as in UltraFeedback", () => {
  const all = [...pairs("train"), ...pairs("test")];
  assert.equal(new Set(all.map((pair) => pair.prompt)).size, all.length, "every prompt is new");
  for (const { prompt, chosen, rejected } of all) {
    for (const chat of [chosen, rejected]) {
      assert.deepEqual(
        chat.map((message) => message.role),
        ["user", "assistant"],
      );
      assert.equal(chat[0]!.content, prompt);
      assert.notEqual(chat[1]!.content, "");
    }
  }
});

test("data: the checker takes the chosen reply of each test pair and not the rejected one", () => {
  for (const { answer, chosen, rejected, prompt } of pairs("test")) {
    assert.ok(answer !== undefined);
    assert.ok(check({ answer }, chosen[1]!.content), prompt);
    assert.ok(!check({ answer }, rejected[1]!.content), prompt);
  }
});

test("data: every kind of task is equally frequent in both files", () => {
  for (const side of ["train", "test"] as const) {
    const rows = pairs(side);
    for (const kind of Object.keys(kinds)) {
      const count = rows.filter((row) => row.id.startsWith(`${kind}-`)).length;
      assert.equal(count, rows.length / Object.keys(kinds).length, `${side} ${kind}`);
    }
  }
});

test("data: the base model's corpus holds no held-out prompt, and starts the same every time", () => {
  const heldOut = new Set(pairs("test").map((pair) => pair.prompt));
  const first: string[] = [];
  for (const { messages } of corpus("train")) {
    assert.ok(!heldOut.has(messages[0]!.content), messages[0]!.content);
    if (first.length < 100) first.push(JSON.stringify(messages));
  }
  for (const { messages } of corpus("train")) {
    assert.equal(JSON.stringify(messages), first.shift());
    if (first.length === 0) break;
  }
});
