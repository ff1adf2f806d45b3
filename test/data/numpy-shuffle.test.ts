import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { loadPreferenceData } from "#src/data/dataset.js";
import { numpyPermutation } from "#src/data/numpy-shuffle.js";
import { fixture } from "../support/paths.js";
import { dataConfig, folderOf } from "./support.js";

/** Written by test/fixtures/data/make_shuffle.py with NumPy and Hugging Face datasets. */
interface Shuffles {
  readonly permutations: readonly {
    readonly seed: number;
    readonly count: number;
    readonly order?: number[];
    readonly first?: number[];
    readonly last?: number[];
    readonly digest?: number;
  }[];
  readonly datasets: readonly {
    readonly parts: readonly { name: string; rows: number; fraction: number }[];
    readonly rows: readonly string[];
  }[];
}

const shuffles = JSON.parse(readFileSync(fixture("data", "shuffle.json"), "utf8")) as Shuffles;

test("shuffle: the permutation is NumPy's default_rng, for every count and seed", () => {
  for (const { seed, count, order, first, last, digest } of shuffles.permutations) {
    const what = `seed ${seed}, count ${count}`;
    const got = Array.from(numpyPermutation(count, seed));
    if (order !== undefined) {
      assert.deepEqual(got, order, what);
      continue;
    }
    assert.deepEqual(got.slice(0, 8), first, what);
    assert.deepEqual(got.slice(-8), last, what);
    // Position · number < 200001², so that no partial sum reaches 2^53.
    const sum = got.reduce((all, value, i) => (all + (i + 1) * value) % (2 ** 31 - 1), 0);
    assert.equal(sum, digest, what);
  }
});

test("shuffle: pools are mixed as Hugging Face datasets mixes them", async (t) => {
  for (const { parts, rows } of shuffles.datasets) {
    const files = Object.fromEntries(
      parts.flatMap(({ name, rows: count }) => {
        const lines = Array.from({ length: count }, (_, i) => tokenRow(name, i));
        return [
          [`${name}/train.jsonl`, lines],
          [`${name}/test.jsonl`, lines],
        ];
      }),
    );
    const baseDir = await folderOf(t, files);
    const datasetMixer = Object.fromEntries(parts.map(({ name, fraction }) => [name, fraction]));
    const options = { modelDir: "/nowhere", baseDir, needTest: true };
    const { train, test: held } = await loadPreferenceData(dataConfig({ datasetMixer }), options);
    const names = (store: typeof train) =>
      Array.from({ length: store.length }, (_, i) => rowName(Array.from(store.pair(i).chosen.ids)));
    assert.deepEqual(names(train), rows);
    assert.match(
      train.where(0),
      new RegExp(`${rows[0]?.[0]}/train\\.jsonl:${Number(rows[0]?.slice(1)) + 1}$`),
    );

    // Test splits are used whole and shuffled with the same seed.
    const all = parts.flatMap((part) => Array.from({ length: part.rows }, (_, i) => part.name + i));
    const order = Array.from(numpyPermutation(all.length, 42), (i) => all[i]);
    assert.deepEqual(names(held), order);

    const plain = dataConfig({ datasetMixer, shuffle: false });
    const inFiles = names((await loadPreferenceData(plain, options)).train);
    const cut = parts.flatMap((part) =>
      Array.from({ length: Math.floor(part.fraction * part.rows) }, (_, i) => part.name + i),
    );
    assert.deepEqual(inFiles, cut);
  }
});

test("shuffle: rows without a token to score leave the order of the others as it is", async (t) => {
  const count = 12;
  const lines = Array.from({ length: count }, (_, i) =>
    i % 3 === 1 ? { ...tokenRow("a", i), chosen_labels: [-100, -100, -100] } : tokenRow("a", i),
  );
  const baseDir = await folderOf(t, { "train.jsonl": lines });
  const { train } = await loadPreferenceData(dataConfig({ datasetMixer: { "train.jsonl": 1 } }), {
    modelDir: "/nowhere",
    baseDir,
    needTest: false,
  });
  const got = Array.from({ length: train.length }, (_, i) => train.pair(i).chosen.ids[2]);
  const want = Array.from(numpyPermutation(count, 42)).filter((i) => i % 3 !== 1);
  assert.deepEqual(got, want);
});

/** A tokenized row whose ids say which row it is. */
function tokenRow(name: string, i: number) {
  const ids = [1, name.charCodeAt(0), i];
  return {
    chosen_input_ids: ids,
    chosen_labels: [-100, ...ids.slice(1)],
    rejected_input_ids: ids,
    rejected_labels: [-100, ...ids.slice(1)],
  };
}

function rowName([, letter, i]: readonly number[]): string {
  return `${String.fromCharCode(letter ?? 0)}${i}`;
}
