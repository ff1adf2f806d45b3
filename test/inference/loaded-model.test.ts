import assert from "node:assert/strict";
import { cpSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { type TestContext, test } from "node:test";
import {
  generate,
  type LoadedModel,
  loadModel,
  type ModelOptions,
  readModel,
  score,
} from "#src/index.js";
import { root } from "../support/paths.js";
import { collect, temporaryFolder } from "./support.js";

const quickstart = path.join(root, "configs", "quickstart", "model");
const question = [{ role: "user", content: "What is 17 + 25?" }];

/** The quickstart's model, disposed after the test. */
async function load(
  t: TestContext,
  dir = quickstart,
  options?: ModelOptions,
): Promise<LoadedModel> {
  const model = await loadModel(dir, options);
  t.after(() => model.dispose());
  return model;
}

test("loadModel: text in, text out", async (t) => {
  const model = await load(t);
  const prompt = model.encodeChat(question);
  assert.ok(prompt.length > 5);
  assert.match(model.decode(prompt), /What is 17 \+ 25\?/);
  const options = { maxNewTokens: 24, eosIds: model.eosIds };
  const { value: answer } = await generate(model, [prompt], options).next();
  assert.ok(model.eosIds.includes(answer!.at(-1)!), "the answer ends by itself");
  assert.match(model.decode(answer!), /^\S/);
});

test("generate, score: an aborted signal ends the iteration with its reason", async (t) => {
  const model = await load(t);
  const ids = model.encode("What is 17 + 25?");
  const signal = AbortSignal.abort(new Error("no longer needed"));
  await assert.rejects(score(model, [ids], { signal }).next(), new Error("no longer needed"));
  const answers = generate(model, [ids], { maxNewTokens: 4, signal });
  await assert.rejects(answers.next(), new Error("no longer needed"));
});

test("generate: aborted in the middle, it gives up before its last token", async (t) => {
  const model = await load(t);
  const controller = new AbortController();
  let tokens = 0;
  const sampler = () => {
    if (++tokens === 3) controller.abort();
    return 5;
  };
  const { signal } = controller;
  const answers = generate(model, [model.encode("a")], { maxNewTokens: 50, sampler, signal });
  await assert.rejects(answers.next(), { name: "AbortError" });
  assert.equal(tokens, 3);
});

test("loadModel: weights are read once, for every call to come", async (t) => {
  const dir = path.join(temporaryFolder(t), "model");
  cpSync(quickstart, dir, { recursive: true });
  const source = await readModel(dir);
  const model = await load(t, dir, { device: "cpu", threads: 2 });
  const prompts = ["What is 17 + 25?", "What is 8 + 5?"].map((content) =>
    model.encodeChat([{ role: "user", content }]),
  );
  const options = { maxNewTokens: 24 };
  const scores = await collect(score(source, prompts, { device: "cpu" }));
  const answers = await collect(
    generate(source, prompts, { ...options, eosIds: model.eosIds, device: "cpu" }),
  );
  // Nothing is left to read.
  rmSync(dir, { recursive: true });
  await assert.rejects(score(source, prompts).next(), { name: "CheckpointError" });
  // Longer and more rows, then fewer: buffers are those of the call.
  for (const rows of [prompts, [...prompts, ...prompts], [prompts[1]!]]) {
    const expected = rows.map((row) => prompts.indexOf(row));
    assert.deepEqual(
      await model.generate(rows, options),
      expected.map((i) => answers[i]),
    );
    assert.deepEqual(
      await model.score(rows),
      expected.map((i) => scores[i]),
    );
  }
  // The functions use them, too, one row at a time.
  const [first] = answers;
  const next = await generate(model, prompts, { ...options, eosIds: model.eosIds }).next();
  assert.deepEqual(next.value, first);
});

test("loadModel: the answers of calls that overlap are those of calls one by one", async (t) => {
  const model = await load(t);
  const rows = ["What is 17 + 25?", "What is 8 + 5?", "a"].map((text) => model.encode(text));
  const options = { maxNewTokens: 12, eosIds: [] };
  const alone = [await model.generate(rows, options), await model.score(rows)];
  const together = await Promise.all([
    model.generate(rows, options),
    model.score(rows),
    model.generate(rows, options),
  ]);
  assert.deepEqual(together, [...alone, alone[0]]);
});

test("loadModel: bf16 is decided there, and nowhere after", async (t) => {
  const model = await load(t, quickstart, { bf16: true });
  const ids = model.encode("What is 17 + 25?");
  const [kept] = await model.score([ids]);
  const source = await readModel(quickstart);
  const [bf16, f32] = [
    (await score(source, [ids], { bf16: true }).next()).value,
    (await score(source, [ids]).next()).value,
  ];
  assert.deepEqual(kept, bf16);
  assert.notDeepEqual(kept, f32);
  for (const late of [{ bf16: false }, { threads: 1 }, { device: "cpu" }] as const) {
    const [[name, value]] = Object.entries(late) as [[string, unknown]];
    const error = {
      name: "ConfigError",
      message: `${name}: the model ${quickstart} is loaded already, so ${value} comes too late`,
      hint: `give ${name} to loadModel()`,
    };
    await assert.rejects(score(model, [ids], late).next(), error);
    await assert.rejects(generate(model, [ids], { maxNewTokens: 1, ...late }).next(), error);
  }
});

test("loadModel: a disposed model says so, and disposing twice is no error", async (t) => {
  const model = await load(t);
  const ids = model.encode("What is 17 + 25?");
  const options = { maxNewTokens: 500, eosIds: [] };
  let tokens = 0;
  const sampler = () => {
    if (++tokens === 3) model.dispose();
    return 5;
  };
  await assert.rejects(model.generate([ids], { ...options, sampler }), {
    name: "ContractError",
    message: /^this stream was disposed or never existed/,
  });
  assert.equal(tokens, 3, "what runs ends with an error");
  model[Symbol.dispose]();
  const error = {
    name: "ConfigError",
    message: `the model ${quickstart} was disposed, expected one that is loaded`,
    hint: /call dispose\(\) once nothing more is asked/,
  };
  await assert.rejects(model.score([ids]), error);
  await assert.rejects(model.generate([ids], options), error);
  assert.equal(model.decode(ids).length > 0, true, "the tokenizer needs no device");
});

test("loadModel: weights that cannot be read leave nothing behind to dispose", async (t) => {
  const dir = path.join(temporaryFolder(t), "model");
  cpSync(quickstart, dir, { recursive: true });
  renameSync(path.join(dir, "model.safetensors"), path.join(dir, "elsewhere"));
  await assert.rejects(loadModel(dir), { name: "CheckpointError" });
});
