import assert from "node:assert/strict";
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loadChatTemplate } from "#src/data/chat.js";
import { loadTokenizer } from "#src/data/tokenizer.js";
import { DataError } from "#src/errors.js";
import { generate } from "#src/inference/generate.js";
import { readModel } from "#src/inference/model.js";
import { greedy, temperatureSampler } from "#src/inference/sample.js";
import { score } from "#src/inference/score.js";
import { makeTinyModel } from "../model/tiny.js";
import { collect, gqaLines, gqaModel, runOnRows, temporaryFolder } from "./support.js";

interface Answer {
  readonly ids: number[];
  readonly text: string | null;
}
const prompts = gqaLines<{ ids: number[] }>("generate.jsonl");
const expected = gqaLines<{ ignore_eos: number[]; until_eos: number[] }>("generate.expected.jsonl");
const idsOf = (answers: readonly Answer[]) => answers.map(({ ids }) => ids);
const n24 = ["--max_new_tokens", "24"];

test("generate: greedy answers are those of transformers, the end of sequence included", async (t) => {
  const { code, stderr, results } = await runOnRows<Answer>(t, "generate", gqaModel, prompts, n24);
  assert.equal(code, 0, stderr);
  assert.deepEqual(
    idsOf(results),
    expected.map(({ until_eos }) => until_eos),
  );
  assert.ok(expected.some(({ until_eos }) => until_eos.length < 24));
  // No tokenizer, no text.
  for (const result of results) assert.equal(result.text, null);
});

test("generate: --ignore_eos goes on to --max_new_tokens", async (t) => {
  const flags = [...n24, "--ignore_eos", "--greedy"];
  const { results } = await runOnRows<Answer>(t, "generate", gqaModel, prompts, flags);
  assert.deepEqual(
    idsOf(results),
    expected.map(({ ignore_eos }) => ignore_eos),
  );
});

test("generate: a prompt's answer does not depend on its batch, over more rows than a batch holds", async () => {
  const model = await readModel(gqaModel);
  const options = { device: "cpu", maxNewTokens: 24 } as const;
  for (const [i, { ids }] of prompts.entries()) {
    const [alone] = await collect(generate(model, [ids], options));
    assert.deepEqual(alone, expected[i]!.ignore_eos);
  }
  // 70 rows: three batches of 32; repeated with a step that mixes lengths.
  const many = Array.from({ length: 70 }, (_, i) => (i * 5) % prompts.length);
  const answers = await collect(
    generate(
      model,
      many.map((i) => prompts[i]!.ids),
      options,
    ),
  );
  assert.deepEqual(
    answers,
    many.map((i) => expected[i]!.ignore_eos),
  );
});

test("generate: prompts longer together than one micro-batch are run in groups", async () => {
  const model = await readModel(gqaModel);
  // 30 prompts of 40 tokens: 1,200, and a micro-batch holds 1,024.
  const long = prompts.at(-1)!.ids;
  const rows = Array.from({ length: 30 }, () => long);
  const answers = await collect(generate(model, rows, { device: "cpu", maxNewTokens: 24 }));
  for (const answer of answers) assert.deepEqual(answer, expected.at(-1)!.ignore_eos);
});

test("generate: with the key/value cache each token is the one that scoring the whole text prefers", async () => {
  const model = await readModel(gqaModel);
  const { ids } = prompts[2]!;
  const [answer] = await collect(generate(model, [ids], { device: "cpu", maxNewTokens: 12 }));
  // Any other last token has a lower log-prob after the same text.
  const before = [...ids, ...answer!.slice(0, -1)];
  const others = Array.from({ length: 211 }, (_, id) => [...before, id]);
  const scores = await collect(score(model, others, { device: "cpu" }));
  const last = scores.map(({ logps }) => logps.at(-1)!);
  assert.equal(last.indexOf(Math.max(...last)), answer!.at(-1));
});

test("generate: bf16 runs and answers with tokens of the vocabulary", async (t) => {
  const flags = [...n24, "--bf16", "--ignore_eos"];
  const { code, stderr, results } = await runOnRows<Answer>(
    t,
    "generate",
    gqaModel,
    prompts,
    flags,
  );
  assert.equal(code, 0, stderr);
  // The first token is far from a tie in most rows: bf16 changes few of them.
  const same = results.filter(({ ids }, i) => ids[0] === expected[i]!.ignore_eos[0]);
  assert.ok(same.length >= prompts.length - 1, `${same.length} of ${prompts.length} begin alike`);
  for (const { ids } of results) {
    assert.equal(ids.length, 24);
    assert.ok(ids.every((id) => id >= 0 && id < 211));
  }
});

test("generate: a temperature with a seed is reproducible, another seed is another answer", async (t) => {
  const run = async (...words: string[]) => {
    const flags = [...n24, "--ignore_eos", ...words];
    return idsOf((await runOnRows<Answer>(t, "generate", gqaModel, prompts, flags)).results);
  };
  const first = await run("--temperature", "1.5", "--seed", "1");
  assert.deepEqual(await run("--temperature", "1.5", "--seed", "1"), first);
  assert.notDeepEqual(await run("--temperature", "1.5", "--seed", "2"), first);
  // Close to 0 only the best token is left.
  assert.deepEqual(
    await run("--temperature", "1e-4"),
    expected.map(({ ignore_eos }) => ignore_eos),
  );
});

test("a sampler draws tokens as often as softmax(logits / t) says", () => {
  const logits = Float32Array.from([0, 1, 2, Number.NEGATIVE_INFINITY]);
  const temperature = 2;
  const draw = temperatureSampler(temperature, 7);
  const draws = 20_000;
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < draws; i++) counts[draw(logits, 0)]! += 1;
  const weights = Array.from(logits, (logit) => Math.exp(logit / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  for (const [id, weight] of weights.entries()) {
    const p = weight / total;
    // Four standard deviations; the seed is fixed.
    const slack = 4 * Math.sqrt((p * (1 - p)) / draws);
    assert.ok(Math.abs(counts[id]! / draws - p) <= slack, `${id}: ${counts[id]! / draws}, ${p}`);
  }
  assert.equal(counts[3], 0);
});

test("greedy takes the lowest id among equals", () => {
  assert.equal(greedy(Float32Array.from([1, 3, 3, 2]), 0), 1);
});

test("generate: a sampled answer does not depend on the rows beside it", async () => {
  const model = await readModel(gqaModel);
  const options = () =>
    ({ device: "cpu", maxNewTokens: 12, sampler: temperatureSampler(1, 3) }) as const;
  const [alone] = await collect(generate(model, [prompts[1]!.ids], options()));
  const rows = [prompts[1]!.ids, prompts[4]!.ids, prompts[0]!.ids];
  const [together] = await collect(generate(model, rows, options()));
  assert.deepEqual(together, alone);
});

test("generate: no new tokens asked, none given; no prompts, no answers", async (t) => {
  const flags = ["--max_new_tokens", "0"];
  const { code, results } = await runOnRows<Answer>(t, "generate", gqaModel, prompts, flags);
  assert.equal(code, 0);
  assert.deepEqual(
    idsOf(results),
    prompts.map(() => []),
  );
  const model = await readModel(gqaModel);
  assert.deepEqual(await collect(generate(model, [], { device: "cpu", maxNewTokens: 4 })), []);
});

test("generate: an empty prompt and a foreign id are refused with file and line", async (t) => {
  const empty = await runOnRows(t, "generate", gqaModel, [prompts[0], { ids: [] }]);
  assert.equal(empty.code, 2, empty.stderr);
  assert.match(
    empty.stderr,
    /rows\.jsonl:2: the prompt is empty, expected at least one token\n {2}begin the prompt/,
  );
  const model = await readModel(gqaModel);
  await assert.rejects(
    collect(generate(model, [[]], { device: "cpu", maxNewTokens: 1 })),
    DataError,
  );
  const foreign = await runOnRows(t, "generate", gqaModel, [{ ids: [211] }]);
  assert.equal(foreign.code, 2);
  assert.match(
    foreign.stderr,
    /rows\.jsonl:1: token 0 has the id 211, expected a whole number from 0 to 210/,
  );
  const none = await runOnRows(t, "generate", gqaModel, [{ prompt: "x" }]);
  assert.equal(none.code, 2);
  assert.match(none.stderr, /rows\.jsonl:1: expected a row with "ids", "text" or "messages"/);
});

test("generate: options that contradict or make no sense are refused", async (t) => {
  for (const [flags, message] of [
    [["--greedy", "--temperature", "1"], /--greedy and --temperature exclude each other/],
    [["--temperature", "0"], /expected a number above 0/],
    [["--max_new_tokens", "-1"], /max_new_tokens|unknown option/],
    [["--max_new_tokens", "many"], /expected a whole number, 0 or more/],
  ] as const) {
    const { code, stderr } = await runOnRows(t, "generate", gqaModel, prompts, flags);
    assert.equal(code, 2, flags.join(" "));
    assert.match(stderr, message);
  }
});

test("generate: text and messages are prompts, too, and answers come as text", async (t) => {
  const dir = await makeTinyModel(path.join(temporaryFolder(t), "model"));
  const tokenizer = await loadTokenizer(dir);
  const text = "The sum of two";
  const messages = [{ role: "user", content: "What is two and two?" }];
  const template = await loadChatTemplate(dir, tokenizer.specialTokens);
  const rendered = template.render(messages, "test", { addGenerationPrompt: true });
  assert.match(rendered, /assistant<\|end_header_id\|>\n\n$/);
  const asIds = [
    { ids: tokenizer.encode(text, { addSpecialTokens: true }) },
    // The template writes BOS itself: it must not come twice.
    { ids: tokenizer.encode(rendered, { addSpecialTokens: false }) },
  ];
  const flags = ["--max_new_tokens", "8"];
  const rows = [{ text }, { messages }, ...asIds];
  const { code, stderr, results } = await runOnRows<Answer>(t, "generate", dir, rows, flags);
  assert.equal(code, 0, stderr);
  assert.deepEqual(results.slice(0, 2), results.slice(2));
  for (const { ids, text } of results) {
    assert.equal(text, tokenizer.decode(ids, { skipSpecialTokens: true }));
  }
});

test("generate: the end of sequence comes from generation_config, else config, and may be a list", async (t) => {
  const dir = path.join(temporaryFolder(t), "model");
  cpSync(gqaModel, dir, { recursive: true });
  const whole = expected[0]!.ignore_eos;
  const stop = (ids: readonly number[]) =>
    whole.slice(0, Math.min(...ids.map((id) => whole.indexOf(id))) + 1);
  const first = async () => {
    const { results } = await runOnRows<Answer>(t, "generate", dir, [prompts[0]], n24);
    return results[0]!.ids;
  };
  const generation = path.join(dir, "generation_config.json");
  const several = [whole[5]!, whole[3]!];
  writeFileSync(generation, JSON.stringify({ eos_token_id: several }));
  assert.deepEqual(await first(), stop(several));
  rmSync(generation);
  const config = path.join(dir, "config.json");
  const fields = JSON.parse(readFileSync(config, "utf8"));
  writeFileSync(config, JSON.stringify({ ...fields, eos_token_id: whole[2] }));
  assert.deepEqual(await first(), stop([whole[2]!]));
});
