import assert from "node:assert/strict";
import { test } from "node:test";
import { generate } from "#src/inference/generate.js";
import { readModel } from "#src/inference/model.js";
import { score } from "#src/inference/score.js";
import { families } from "../model/families.js";
import { readPairs } from "../model/support.js";
import { collect } from "./support.js";

for (const family of families) {
  const { name, expected } = family;

  test(`${name}: greedy answers are those of transformers`, async (t) => {
    const model = await readModel(family.model(t));
    const prompts = expected.generate.map(({ prompt }) => prompt);
    const answers = await collect(generate(model, prompts, { device: "cpu", maxNewTokens: 24 }));
    assert.deepEqual(
      answers,
      expected.generate.map(({ ids }) => ids),
    );
  });

  test(`${name}: score gives the log-probs of transformers`, async (t) => {
    const model = await readModel(family.model(t));
    const sequences = readPairs(family.pairs).map(({ chosen }) => chosen.ids);
    const scores = await collect(score(model, sequences, { device: "cpu" }));
    for (const [p, { id, chosen }] of expected.pairs.entries()) {
      const scored = scores[p]!.logps.slice(-chosen.length);
      for (const [i, logp] of chosen.entries()) {
        const error = Math.abs(scored[i]! - logp);
        // The promise is 2e-4.
        assert.ok(error < 5e-5, `${id} token ${i}: off by ${error}`);
      }
    }
  });
}
