import assert from "node:assert/strict";
import { test } from "node:test";
import { packPairs, packSequences } from "#src/data/pack.js";
import { readTensors } from "../train/support.js";
import { families } from "./families.js";
import { lossAndGradients, readPairs, type Way, withTraining } from "./support.js";

for (const family of families) {
  const { name, expected } = family;

  test(`${name}: logits are those of transformers in float64`, async (t) => {
    const { values, shape } = (await readTensors(family.tensors)).get("logits")!;
    const [rows, V] = shape as [number, number];
    // One more token, so that the last one of the sequence predicts something.
    const ids = Int32Array.from([...expected.logits.ids, 0]);
    const got = await withTraining(family.model(t), { pairs: false }, async (session, limits) => {
      const [batch] = packSequences([{ ids, labels: ids }], { maxTokens: limits.tokens });
      const parts: Promise<Float32Array>[] = [];
      const { pass, stream } = session;
      pass.logits(
        batch!,
        () => () => pass.attend,
        (logits) => {
          parts.push(stream.read(logits) as Promise<Float32Array>);
        },
      );
      assert.equal(parts.length, 1);
      return parts[0]!;
    });
    assert.equal(rows, expected.logits.ids.length / 2);
    let worst = 0;
    for (let i = 0; i < rows; i++) {
      for (let v = 0; v < V; v++) {
        // The fixture has rows 1, 3, 5, ..
        worst = Math.max(worst, Math.abs(got[(2 * i + 1) * V + v]! - values[i * V + v]!));
      }
    }
    // The promise is 5e-4; f32 rounding through two layers is a tenth of this.
    assert.ok(worst < 5e-5, `a logit is off by ${worst}`);
  });

  for (const prefixSharing of [true, false]) {
    const packed = prefixSharing ? "shared prompts" : "separate sequences";
    test(`${name}: log-probs of the pairs are those of transformers in float64 (${packed})`, async (t) => {
      const pairs = readPairs(family.pairs);
      const way = { tokens: 1024, scored: 1024, pairs: true };
      const logps = await withTraining(family.model(t), way, async ({ pass }, limits) => {
        const batches = packPairs(pairs, { maxTokens: limits.tokens, prefixSharing });
        assert.equal(batches.length, 1);
        const { responses, members } = batches[0]!;
        assert.deepEqual([...members], [...pairs.keys()]);
        const all = await pass.score(batches[0]!);
        return pairs.map((_, p) => {
          const response = (side: 0 | 1) => {
            const [begin, end, found] = responses.subarray(3 * (2 * p + side));
            assert.equal(found, side);
            return [...all.subarray(begin, end)];
          };
          return { chosen: response(0), rejected: response(1) };
        });
      });
      for (const [p, { id, ...sides }] of expected.pairs.entries()) {
        for (const side of ["chosen", "rejected"] as const) {
          assert.equal(logps[p]![side].length, sides[side].length, `${id} ${side}`);
          for (const [i, logp] of sides[side].entries()) {
            const error = Math.abs(logps[p]![side][i]! - logp);
            // The promise is 2e-4.
            assert.ok(error < 5e-5, `${id} ${side} token ${i}: off by ${error}`);
          }
        }
      }
    });
  }

  const ways: Readonly<Record<string, Way>> = {
    "shared prompts": {},
    "separate sequences": { prefixSharing: false },
    "gradient checkpointing": { checkpointing: true },
  };
  for (const [packed, way] of Object.entries(ways)) {
    test(`${name}: loss and every gradient of SimPER follow transformers in float64 (${packed})`, async (t) => {
      const { loss, gradients } = await lossAndGradients(
        family.model(t),
        readPairs(family.pairs),
        way,
      );
      const { simper } = expected;
      assert.ok(Math.abs(loss - simper.loss) < 2e-6, `loss ${loss}, expected ${simper.loss}`);
      assert.deepEqual([...gradients.keys()].sort(), Object.keys(expected.gradients).sort());
      for (const [tensor, { norm, at, values }] of Object.entries(expected.gradients)) {
        const gradient = gradients.get(tensor)!;
        const found = Math.hypot(...gradient);
        // The promise is 1e-3; measured 2e-6, f32 rounding through two layers.
        assert.ok(Math.abs(found - norm) < 2e-5 * norm, `${tensor}: norm ${found}, not ${norm}`);
        for (const [i, value] of values.entries()) {
          const error = Math.abs(gradient[at[i]!]! - value);
          assert.ok(error < 2e-5 * norm, `${tensor}[${at[i]}]: off by ${error}`);
        }
      }
    });
  }
}
