import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { dataFields, dataKeysWithoutEffect } from "#src/data/schema.js";

const schema = z.strictObject(dataFields);
const issues = (value: unknown): string[] =>
  schema
    .safeParse(value)
    .error?.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`) ?? [];

test("schema: the defaults are the reference's", () => {
  assert.deepEqual(schema.parse({ datasetMixer: { a: 1 } }), {
    datasetMixer: { a: 1 },
    datasetSplits: ["train", "test"],
    truncationMode: "keep_end",
    dataSemantics: "reference",
    autoInsertEmptySystemMsg: true,
    shuffle: true,
    prefixSharing: true,
    textColumn: "text",
  });
});

test("schema: nulls of a recipe are accepted, wrong values are not", () => {
  const nulls = { maxLength: null, maxPromptLength: null, chatTemplate: null };
  assert.deepEqual(issues({ datasetMixer: { a: 1 }, ...nulls }), []);
  assert.match(issues({}).join(), /datasetMixer: Invalid input: expected record/);
  assert.match(issues({ datasetMixer: { a: -1 } }).join(), /datasetMixer\.a: Too small/);
  assert.match(issues({ datasetMixer: { a: 2 } }).join(), /datasetMixer\.a: Too big/);
  const bad = { datasetMixer: {}, maxLength: 1.5, maxPromptLength: 0, truncationMode: "middle" };
  assert.match(
    issues(bad).join("\n"),
    /maxLength: [\s\S]*maxPromptLength: [\s\S]*truncationMode: /,
  );
  for (const key of dataKeysWithoutEffect) assert.ok(key in dataFields);
});
