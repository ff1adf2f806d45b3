import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { generate, loadModel, score } from "#src/index.js";
import { root } from "../support/paths.js";

const quickstart = path.join(root, "configs", "quickstart", "model");
const question = [{ role: "user", content: "What is 17 + 25?" }];

test("loadModel: text in, text out", async () => {
  const model = await loadModel(quickstart);
  const prompt = model.encodeChat(question);
  assert.ok(prompt.length > 5);
  assert.match(model.decode(prompt), /What is 17 \+ 25\?/);
  const options = { maxNewTokens: 24, eosIds: model.eosIds };
  const { value: answer } = await generate(model, [prompt], options).next();
  assert.ok(model.eosIds.includes(answer!.at(-1)!), "the answer ends by itself");
  assert.match(model.decode(answer!), /^\S/);
});

test("generate, score: an aborted signal ends the iteration with its reason", async () => {
  const model = await loadModel(quickstart);
  const ids = model.encode("What is 17 + 25?");
  const signal = AbortSignal.abort(new Error("no longer needed"));
  await assert.rejects(score(model, [ids], { signal }).next(), new Error("no longer needed"));
  const answers = generate(model, [ids], { maxNewTokens: 4, signal });
  await assert.rejects(answers.next(), new Error("no longer needed"));
});

test("generate: aborted in the middle, it gives up before its last token", async () => {
  const model = await loadModel(quickstart);
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
