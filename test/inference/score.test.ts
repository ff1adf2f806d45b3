import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { loadTokenizer } from "#src/data/tokenizer.js";
import { readModel } from "#src/inference/model.js";
import { type Score, score } from "#src/inference/score.js";
import { makeTinyModel } from "../model/tiny.js";
import {
  collect,
  gqaLines,
  gqaModel,
  runCli,
  runOnRows,
  temporaryFolder,
  writeLines,
} from "./support.js";

interface Scored {
  readonly logps: number[];
  readonly sum: number;
  readonly mean: number;
}
const rows = gqaLines<{ ids: number[] }>("score.jsonl");
const expected = gqaLines<Scored>("score.expected.jsonl");

function checkScores(got: readonly Scored[], want: readonly Scored[], tolerance: number): void {
  assert.equal(got.length, want.length);
  for (const [i, { logps, sum, mean }] of got.entries()) {
    const expected = want[i]!;
    assert.equal(logps.length, expected.logps.length, `row ${i}`);
    for (const [t, logp] of logps.entries()) {
      const error = Math.abs(logp - expected.logps[t]!);
      assert.ok(
        error <= tolerance,
        `row ${i} token ${t + 1}: ${logp}, expected ${expected.logps[t]}`,
      );
    }
    assert.ok(
      Math.abs(sum - expected.sum) <= tolerance * Math.max(1, logps.length),
      `row ${i}: sum`,
    );
    assert.ok(Math.abs(mean - expected.mean) <= tolerance, `row ${i}: mean`);
  }
}

test("score: log-probs of transformers in float64, row by row in order; other fields are ignored", async (t) => {
  const input = rows.map(({ ids }, i) => ({ id: `row-${i}`, text: 7, ids, note: null }));
  const { code, stderr, results } = await runOnRows<Scored>(t, "score", gqaModel, input);
  assert.equal(code, 0, stderr);
  for (const result of results) assert.deepEqual(Object.keys(result), ["logps", "sum", "mean"]);
  // The promise is 2e-4; f32 rounding through three layers is ten times less.
  checkScores(results, expected, 2e-5);
});

test("score: bf16 weights and activations stay near", async (t) => {
  const { results } = await runOnRows<Scored>(t, "score", gqaModel, rows, ["--bf16", "true"]);
  // Logits of about 2 with 8 bits, through three layers. transformers in bf16: 0.046, at most 0.15.
  checkScores(results, expected, 0.3);
  const errors = results.flatMap(({ logps }, i) =>
    logps.map((logp, t) => logp - expected[i]!.logps[t]!),
  );
  const squares = errors.reduce((sum, error) => sum + error ** 2, 0);
  const rms = Math.sqrt(squares / errors.length);
  assert.ok(rms < 0.08, `root mean square of the errors ${rms}`);
  const exact = results.every(({ sum }, i) => Math.abs(sum - expected[i]!.sum) < 1e-5);
  assert.ok(!exact, "it did run in bf16");
});

test("score writes to standard output without --out", async (t) => {
  const file = writeLines(path.join(temporaryFolder(t), "rows.jsonl"), rows.slice(0, 2));
  const { code, stdout } = await runCli(["score", "--model", gqaModel, "--input", file]);
  assert.equal(code, 0);
  const lines = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Scored);
  checkScores(lines, expected.slice(0, 2), 2e-5);
});

test("score: order and values do not depend on the rows around, over several chunks", async () => {
  // Lengths out of order, so that packing by length has something to mix up; more than 64 rows.
  const long = rows.at(-1)!.ids;
  const many = Array.from({ length: 150 }, (_, i) => long.slice(0, 1 + ((i * 37) % 41)));
  const model = await readModel(gqaModel);
  const scores = await collect(score(model, many, { device: "cpu" }));
  assert.equal(scores.length, many.length);
  const whole = expected.at(-1)!.logps;
  for (const [i, { logps, mean, sum }] of scores.entries()) {
    // Every row is a beginning of one text, so its log-probs are too.
    assert.equal(logps.length, many[i]!.length - 1, `row ${i}`);
    for (const [t, logp] of logps.entries()) {
      assert.ok(Math.abs(logp - whole[t]!) < 2e-5, `row ${i} token ${t + 1}`);
    }
    if (logps.length === 0) assert.deepEqual([sum, mean], [0, 0]);
  }
});

test("score: rows of one token, of none, and no rows at all", async (t) => {
  const nothing = { logps: [], sum: 0, mean: 0 };
  const mixed = [{ ids: [5] }, rows[0], { ids: [] }, { ids: [6] }];
  const { code, stderr, results } = await runOnRows<Scored>(t, "score", gqaModel, mixed);
  assert.equal(code, 0, stderr);
  assert.deepEqual([results[0], results[2], results[3]], [nothing, nothing, nothing]);
  checkScores([results[1]!], [expected[0]!], 2e-5);
  const model = await readModel(gqaModel);
  assert.deepEqual(
    (await collect(score(model, [[5], [6]], { device: "cpu" }))).map(lengthOf),
    [0, 0],
  );
  assert.deepEqual(await collect(score(model, [], { device: "cpu" })), []);
});

const lengthOf = ({ logps }: Score) => logps.length;

test("score: text is tokenized with the tokenizer's own special tokens; ids win over text", async (t) => {
  const model = await makeTinyModel(path.join(temporaryFolder(t), "model"));
  const text = "The sum of two numbers.";
  const ids = (await loadTokenizer(model)).encode(text, { addSpecialTokens: true });
  assert.ok(ids.length > 4);
  const input = [{ text }, { ids }, { ids: [1, 2], text }];
  const { code, stderr, results } = await runOnRows<Scored>(t, "score", model, input);
  assert.equal(code, 0, stderr);
  assert.deepEqual(results[0], results[1]);
  assert.equal(results[0]!.logps.length, ids.length - 1);
  assert.equal(results[2]!.logps.length, 1);
});

test("score: what a row lacks or has wrong is said with file and line", async (t) => {
  const cases: [unknown, RegExp][] = [
    [
      { ids: [1, 211] },
      /rows\.jsonl:2: token 1 has the id 211, expected a whole number from 0 to 210\n {2}the rows were tokenized/,
    ],
    [{ ids: [1.5] }, /rows\.jsonl:2: token 0 has the id 1\.5, expected a whole number/],
    [{ ids: [-1] }, /rows\.jsonl:2: token 0 has the id -1/],
    [{ ids: "1 2" }, /rows\.jsonl:2: ids: expected a list of token ids, received "1 2"/],
    [{ prompt: "x" }, /rows\.jsonl:2: expected a row with "ids" or "text", received prompt/],
    [{ text: "x" }, /expected a tokenizer, found no tokenizer\.json/],
  ];
  for (const [row, message] of cases) {
    const { code, stderr } = await runOnRows(t, "score", gqaModel, [rows[0], row]);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
  }
});

test("score: a model that is not there ends with exit code 1", async (t) => {
  const { code, stderr } = await runOnRows(t, "score", "nowhere", rows);
  assert.equal(code, 1);
  assert.match(stderr, /nowhere\/config\.json: cannot be read/);
});
