import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { formatOf, isDataFile } from "#src/data/formats/index.js";
import { jsonError, skipValue } from "#src/data/formats/json-position.js";
import { collect, dataError, folderOf } from "./support.js";

async function rowsOf(t: Parameters<typeof folderOf>[0], name: string, content: string | Buffer) {
  const file = path.join(await folderOf(t, { [name]: content }), name);
  const rows = await collect(formatOf(file).read(file));
  assert.equal(await formatOf(file).count(file), rows.length);
  return rows.map(({ line, value }) => [line, value]);
}

test("jsonl: one object per line, with blank lines, CRLF, a BOM, U+2028 and no last newline", async (t) => {
  const text = '\ufeff{"a": 1}\r\n\n  \t\n{"a": "x\u2028y"}\n{"a": 3}';
  assert.deepEqual(await rowsOf(t, "a.jsonl", text), [
    [1, { a: 1 }],
    [4, { a: "x\u2028y" }],
    [5, { a: 3 }],
  ]);
});

test("jsonl: lines and characters across read chunks stay whole", async (t) => {
  const long = "é😀".repeat(400_000); // 2.4 MB: more than two chunks
  const text = `{"a": "${long}"}\n{"a": 2}\n`;
  assert.deepEqual(await rowsOf(t, "a.jsonl", text), [
    [1, { a: long }],
    [2, { a: 2 }],
  ]);
});

test("json: a list, a list under data, and objects one after the other", async (t) => {
  const list = '\n[\n  {"a": [1, {"b": "]"}]},\n\n  {"a": "\\"}"}\n]\n';
  assert.deepEqual(await rowsOf(t, "a.json", list), [
    [3, { a: [1, { b: "]" }] }],
    [5, { a: '"}' }],
  ]);
  assert.deepEqual(await rowsOf(t, "a.json", '{"data": [{"a": 1}, {"a": 2}]}'), [
    [1, { a: 1 }],
    [1, { a: 2 }],
  ]);
  assert.deepEqual(await rowsOf(t, "a.json", '{"a": 1}\n{\n"a": 2}\n'), [
    [1, { a: 1 }],
    [2, { a: 2 }],
  ]);
  assert.deepEqual(await rowsOf(t, "a.json", " [] "), []);
  assert.deepEqual(await rowsOf(t, "a.json", ""), []);
});

test("malformed JSON is named by file, line and column", async (t) => {
  const hint = /one JSON object per line/;
  await assert.rejects(
    rowsOf(t, "a.jsonl", '{"a": 1}\n{"a": 1,}\n'),
    dataError(/a\.jsonl:2:9: malformed JSON: expected a key in double quotes, found "}"$/, hint),
  );
  await assert.rejects(
    rowsOf(t, "a.jsonl", '{"a": 1} {"b": 2}\n'),
    dataError(/a\.jsonl:1:10: malformed JSON: "{" after the end of the value$/),
  );
  await assert.rejects(
    rowsOf(t, "a.jsonl", '{"a": "x'),
    dataError(/a\.jsonl:1:9: .*expected the closing " of a string, found the end of the text$/),
  );
  await assert.rejects(
    rowsOf(t, "a.json", '[\n {"a": 1},\n {"a" 2}\n]'),
    dataError(/a\.json:3:7: malformed JSON: expected ":", found "2"$/),
  );
  await assert.rejects(
    rowsOf(t, "a.json", '[{"a": 1} {"a": 2}]'),
    dataError(/a\.json:1:11: malformed JSON: expected "," or "]"$/),
  );
  await assert.rejects(
    rowsOf(t, "a.json", '[{"a": 1}] x'),
    dataError(/a\.json:1:12: malformed JSON: text after the end of the list$/),
  );
  await assert.rejects(
    rowsOf(t, "a.json", '{"data": [{"a": 1}], "more": 2}'),
    dataError(/a\.json:1:20: malformed JSON: expected "}" after the list "data"$/),
  );
});

test("rows that are no objects, other bytes than UTF-8, and other files are refused", async (t) => {
  await assert.rejects(
    rowsOf(t, "a.jsonl", '{"a": 1}\n[1]\n'),
    dataError(/a\.jsonl:2: expected a row .*, found a list$/, /one JSON object/),
  );
  await assert.rejects(rowsOf(t, "a.json", "[null]"), dataError(/a\.json:1: .* found null$/));
  await assert.rejects(rowsOf(t, "a.json", "[\n5]"), dataError(/a\.json:2: .* found a number$/));
  await assert.rejects(
    rowsOf(t, "a.jsonl", Buffer.from([0x7b, 0x0a, 0xff, 0x0a]).subarray(2)),
    dataError(/a\.jsonl:1: expected UTF-8 text/, /UTF-8/),
  );
  assert.throws(
    () => formatOf("x/data.parquet"),
    dataError(/x\/data\.parquet: expected a data file \(\.jsonl, \.json\)/, /JSON Lines/),
  );
  assert.ok(isDataFile("A.JSONL") && !isDataFile("a.txt"));
});

test("json position: agrees with JSON.parse on what is valid, and finds where it breaks", () => {
  const valid = [
    '""',
    "-0.5e+10",
    "[]",
    "{}",
    '[[],[{"a":[]}],"x"]',
    '{"a":{"b":null},"c":true}',
    " 1 ",
  ];
  for (const text of valid) {
    JSON.parse(text);
    assert.equal(jsonError(text), undefined, text);
  }
  const broken: [string, number][] = [
    ["", 0],
    ["01", 1],
    ["[1,]", 3],
    ['{"a":1,}', 7],
    ['["\\x"]', 2],
    ['["a\nb"]', 3],
    ["[1}", 2],
    ["tru", 0],
    ["[", 1],
    ["{1:2}", 1],
    ["NaN", 0],
    ["-", 0],
    ['{"a"}', 4],
  ];
  for (const [text, offset] of broken) {
    assert.throws(() => JSON.parse(text));
    assert.equal(jsonError(text)?.offset, offset, text);
  }
  const deep = "[".repeat(200_000) + "]".repeat(200_000);
  assert.equal(skipValue(deep, 0), deep.length);
});

test("json position: random edits of valid JSON are judged as JSON.parse judges them", () => {
  const seed = Date.now() % 1_000_000;
  console.log(`seed ${seed}`);
  let state = seed;
  const next = (n: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const base =
    '{"prompt": "a\\u00e9\\n", "chosen": [{"role": "user", "n": [-1.5e3, true, null, {}]}]}';
  const pieces = ['"', "{", "}", "[", "]", ",", ":", "\\", "0", "e", "\n", " ", "x"];
  for (let round = 0; round < 5000; round++) {
    const at = next(base.length);
    const text = base.slice(0, at) + (pieces[next(pieces.length)] ?? "") + base.slice(at + next(3));
    let ok = true;
    try {
      JSON.parse(text);
    } catch {
      ok = false;
    }
    assert.equal(jsonError(text) === undefined, ok, text);
  }
});
