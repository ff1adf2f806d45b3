import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { resolveMix, rowsOf } from "#src/data/mix.js";
import { collect, dataError, folderOf } from "./support.js";

const numbers = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => ({ n: from + i }));

/** The column n of the rows that a mix yields. */
async function read(
  folder: string,
  datasetMixer: Record<string, number>,
  datasetSplits = ["train", "test"],
  datasetConfigs?: string[],
) {
  const mix = await resolveMix(
    { datasetMixer, datasetSplits, ...(datasetConfigs ? { datasetConfigs } : {}) },
    folder,
  );
  const values = async (pool: "train" | "test") =>
    (await collect(rowsOf(mix[pool]))).map(({ value }) => value.n);
  return { train: await values("train"), test: await values("test") };
}

test("mix: a folder's files carry their splits", async (t) => {
  const folder = await folderOf(t, {
    "a/train.jsonl": numbers(0, 2),
    "a/test.json": JSON.stringify(numbers(10, 1)),
    "a/readme.txt": "no data",
    "b/train_prefs.jsonl": numbers(20, 1),
    "b/test_prefs.jsonl": numbers(30, 1),
    "b/train_sft.jsonl": numbers(40, 1),
    "c/data/my-train-00001-of-00002.jsonl": numbers(51, 1),
    "c/data/my-train-00000-of-00002.jsonl": numbers(50, 1),
    "d/train/0.jsonl": numbers(60, 1),
    "d/train/1.jsonl": numbers(61, 1),
    "e/train_prefs-00000-of-00001.jsonl": numbers(70, 1),
  });
  assert.deepEqual(await read(folder, { a: 1 }), { train: [0, 1], test: [10] });
  const prefs = ["train_prefs", "test_prefs"];
  assert.deepEqual(await read(folder, { b: 1 }, prefs), { train: [20], test: [30] });
  assert.deepEqual(await read(folder, { c: 1 }), { train: [50, 51], test: [] });
  assert.deepEqual(await read(folder, { d: 1 }), { train: [60, 61], test: [] });
  assert.deepEqual(await read(folder, { e: 1 }, ["train_prefs"]), { train: [70], test: [] });
  assert.deepEqual(await read(folder, { a: 1, d: 1 }), { train: [0, 1, 60, 61], test: [10] });
  await assert.rejects(
    read(folder, { b: 1 }),
    dataError(
      /several files could be the split "train": train_prefs\.jsonl, train_sft\.jsonl$/,
      /dataset_splits/,
    ),
  );
});

test("mix: a file serves the split in its name, else training", async (t) => {
  const folder = await folderOf(t, {
    "prefs.jsonl": numbers(0, 1),
    "my_train.jsonl": numbers(1, 1),
    "my_test.jsonl": numbers(2, 1),
    "contest.jsonl": numbers(3, 1),
    "test_prefs.jsonl": numbers(4, 1),
  });
  assert.deepEqual(await read(folder, { "prefs.jsonl": 1 }), { train: [0], test: [] });
  assert.deepEqual(await read(folder, { "my_train.jsonl": 1, "my_test.jsonl": 1 }), {
    train: [1],
    test: [2],
  });
  assert.deepEqual(await read(folder, { "contest.jsonl": 1 }), { train: [3], test: [] });
  const prefs = ["train_prefs", "test_prefs"];
  assert.deepEqual(await read(folder, { "my_test.jsonl": 1, "prefs.jsonl": 1 }, prefs), {
    train: [0],
    test: [2],
  });
  assert.deepEqual(await read(folder, { "test_prefs.jsonl": 1 }, prefs), { train: [], test: [4] });
});

test("mix: fractions take the first rows of train, over all files, and never cut test", async (t) => {
  const folder = await folderOf(t, {
    "a/train-0.jsonl": numbers(0, 3),
    "a/train-1.jsonl": numbers(3, 4),
    "a/test.jsonl": numbers(10, 3),
  });
  const test = [10, 11, 12];
  assert.deepEqual(await read(folder, { a: 0.5 }), { train: [0, 1, 2], test }); // int(3.5)
  assert.deepEqual(await read(folder, { a: 0.6 }), { train: [0, 1, 2, 3], test });
  assert.deepEqual(await read(folder, { a: 0 }), { train: [], test });
  for (const fraction of [-0.5, 1.5, Number.NaN]) {
    await assert.rejects(
      read(folder, { a: fraction }),
      dataError(/^dataset_mixer: "a": expected a fraction from 0 to 1, found (-0\.5|1\.5|NaN)$/),
    );
  }
});

test("mix: a relative path is looked up in the current directory, then beside the recipe", async (t) => {
  const folder = await folderOf(t, { "data/train.jsonl": numbers(5, 1) });
  assert.deepEqual(await read(folder, { data: 1 }, ["train"]), { train: [5], test: [] });
  // "src" exists in the current directory (the repository) and is found first.
  const inRecipe = await folderOf(t, { "src/train.jsonl": numbers(6, 1) });
  await assert.rejects(read(inRecipe, { src: 1 }), (error: Error) =>
    error.message.startsWith(path.resolve("src")),
  );
  assert.deepEqual(await read("/", { [path.join(folder, "data")]: 1 }), { train: [5], test: [] });
});

test("mix: keys that lead nowhere and unknown split names are refused", async (t) => {
  const folder = await folderOf(t, { "a/other.jsonl": numbers(0, 1), "b/x.txt": "", "c.csv": "" });
  await assert.rejects(
    read(folder, { "HuggingFaceH4/ultrafeedback_binarized": 1 }),
    dataError(
      /^dataset_mixer: "HuggingFaceH4\/ultrafeedback_binarized": expected a file or folder, found nothing at .* or /,
      /downloaded first/,
    ),
  );
  await assert.rejects(
    read(folder, { a: 1 }),
    dataError(/a: expected files for the splits train, test, found other\.jsonl$/, /train\.jsonl/),
  );
  await assert.rejects(read(folder, { b: 1 }), dataError(/found no \.jsonl or \.json file$/));
  await assert.rejects(read(folder, { "c.csv": 1 }), dataError(/c\.csv: expected a data file/));
  await assert.rejects(
    read(folder, { a: 1 }, ["train", "validation"]),
    dataError(
      /^dataset_splits: expected names with "train" or "test" in them, found "validation"$/,
    ),
  );
  await assert.rejects(
    read(folder, { "a/other.jsonl": 1 }, ["test"]),
    dataError(/other\.jsonl: this file serves none of the splits test$/),
  );
});

test("mix: a configuration is a sub-folder of its data set", async (t) => {
  const folder = await folderOf(t, {
    "a/en/train.jsonl": numbers(0, 1),
    "a/en/test.jsonl": numbers(1, 1),
    "a/de/train.jsonl": numbers(10, 1),
    "a/train.jsonl": numbers(20, 1),
    "b/data/en/train_prefs/0.jsonl": numbers(30, 1),
    "b/data/en/test_prefs.jsonl": numbers(31, 1),
    "c/train.jsonl": numbers(40, 1),
  });
  const splits = ["train", "test"];
  assert.deepEqual(await read(folder, { a: 1 }, splits, ["en"]), { train: [0], test: [1] });
  assert.deepEqual(await read(folder, { a: 1 }, splits, ["de"]), { train: [10], test: [] });
  assert.deepEqual(await read(folder, { b: 1 }, ["train_prefs", "test_prefs"], ["en"]), {
    train: [30],
    test: [31],
  });
  assert.deepEqual(await read(folder, { a: 1, c: 1 }, splits, ["de", "all"]), {
    train: [10, 40],
    test: [],
  });
  // An empty list says nothing, as in the reference.
  assert.deepEqual(await read(folder, { a: 1 }, splits, []), { train: [20], test: [] });
  const { notices } = await resolveMix(
    { datasetMixer: { c: 1 }, datasetSplits: splits, datasetConfigs: ["all"] },
    folder,
  );
  assert.equal(notices.length, 1);
  assert.match(notices[0] ?? "", /^dataset_configs: "all": .*c has no folder of that name/);
  await assert.rejects(
    read(folder, { a: 1, c: 1 }, splits, ["en"]),
    dataError(
      /^dataset_configs: expected one for each of the 2 data sets of dataset_mixer \(a, c\), found 1: en$/,
      /leave dataset_configs out/,
    ),
  );
});

test("mix: several train splits of a data set have its fraction each, in the order of the recipe", async (t) => {
  const folder = await folderOf(t, {
    "a/train_sft.jsonl": numbers(0, 4),
    "a/train_prefs.jsonl": numbers(10, 2),
    "b/train_prefs.jsonl": numbers(20, 4),
    "b/test_prefs.jsonl": numbers(30, 2),
  });
  const splits = ["train_prefs", "test_prefs", "train_sft"];
  assert.deepEqual(await read(folder, { a: 0.5, b: 1 }, splits), {
    train: [10, 0, 1, 20, 21, 22, 23],
    test: [30, 31],
  });
  const { notices } = await resolveMix(
    { datasetMixer: { a: 0.5, b: 0.5 }, datasetSplits: splits },
    folder,
  );
  assert.deepEqual(notices, [
    'dataset_mixer: "a": the fraction 0.5 is taken of each of its train splits (train_prefs, train_sft); ' +
      "the reference pairs fractions and splits wrongly here",
    'dataset_splits: "test_prefs" is not in "a"',
    'dataset_splits: "train_sft" is not in "b"',
  ]);
});

test("mix: a split that no data set has is refused, and the splits there are are named", async (t) => {
  const folder = await folderOf(t, {
    "a/train_prefs-00000-of-00002.jsonl": numbers(0, 1),
    "a/train_prefs-00001-of-00002.jsonl": numbers(1, 1),
    "a/train_sft/0.jsonl": numbers(2, 1),
    "a/data/test_prefs.jsonl": numbers(3, 1),
    "b/train_prefs.jsonl": numbers(4, 1),
    "c/train.jsonl": numbers(5, 1),
    "c/tset.jsonl": numbers(6, 1),
    "prefs.jsonl": numbers(7, 1),
  });
  const refused = (mixer: Record<string, number>, splits: string[], message: RegExp) =>
    assert.rejects(read(folder, mixer, splits), dataError(message, /correct the name, or leave/));
  await refused(
    { a: 1 },
    ["train_prefs", "train_stf", "test_prefs"],
    /^dataset_splits: "train_stf": no data set of dataset_mixer has this split; \S+a has test_prefs, train_prefs, train_sft$/,
  );
  await refused(
    { a: 1, b: 1 },
    ["train_prefs", "test_perfs"],
    /"test_perfs": no .*; \S+a has test_prefs, train_prefs, train_sft; \S+b has train_prefs$/,
  );
  // Another train split does not make up for one that is nowhere.
  await refused({ c: 1 }, ["train", "train_more"], /"train_more": no .* \S+c has train, tset$/);
  // train and test are looked for without being asked; a file serves one split, whichever it is.
  assert.deepEqual(await read(folder, { c: 1 }), { train: [5], test: [] });
  const prefs = ["train_prefs", "test_prefs"];
  assert.deepEqual(await read(folder, { "prefs.jsonl": 1 }, prefs), { train: [7], test: [] });
  assert.deepEqual(await read(folder, { a: 1, b: 1, "prefs.jsonl": 1 }, prefs), {
    train: [0, 1, 4, 7],
    test: [3],
  });
  const { notices } = await resolveMix(
    { datasetMixer: { a: 1, b: 1, "prefs.jsonl": 1 }, datasetSplits: prefs },
    folder,
  );
  assert.deepEqual(notices, ['dataset_splits: "test_prefs" is not in "b"']);
});
