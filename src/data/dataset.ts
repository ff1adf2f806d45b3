import { setImmediate } from "node:timers/promises";
import { DataError } from "../errors.js";
import { resolveMix, rowsOf, type Source } from "./mix.js";
import { numpyPermutation } from "./numpy-shuffle.js";
import { createPreparer, type Preparer } from "./prepare.js";
import { readPreferenceRow, readSftRow } from "./rows.js";
import type { DataConfig } from "./schema.js";
import { PairStore, SequenceStore } from "./store.js";

/** Longest stretch of work between two turns of the event loop. */
const TURN_MS = 20;

/** The reference shuffles its data with this seed whatever the seed of the run. [seed.md A.3] */
const POOL_SEED = 42;

/** How a data set is loaded. */
export interface LoadOptions {
  /** Directory of the model: tokenizer and chat template. */
  readonly modelDir: string;
  /** `model_name_or_path` of the recipe, in which the reference looks for "mistral"; `modelDir` by default. */
  readonly modelName?: string;
  /** Folder of the recipe; relative paths are looked up there after the current directory. */
  readonly baseDir: string;
  /** Read the test splits too. Without, `test` is empty. */
  readonly needTest: boolean;
  /** Called now and then with the number of rows read so far. */
  readonly onProgress?: (progress: { pool: "train" | "test"; rows: number }) => void;
}

/** What became of the rows of one pool. */
export interface PoolCounts {
  /** Rows read. */
  rows: number;
  /** Rows left out because a side has no token to score. */
  dropped: number;
  /** Rows that lost tokens to the length limits, dropped ones included. */
  truncated: number;
  /** Pairs used although chosen and rejected are the same tokens (always 0 for plain sequences). */
  identical: number;
}

/** A loaded data set. `notices` are lines for the user. */
export interface LoadedData<Store> {
  readonly train: Store;
  readonly test: Store;
  readonly counts: { readonly train: PoolCounts; readonly test: PoolCounts };
  readonly notices: readonly string[];
  /** The chat template to save with the model; `undefined` where it is the model's own or there is none. */
  readonly chatTemplate: string | undefined;
}

interface Outcome {
  readonly dropped: boolean;
  readonly truncated: boolean;
  readonly identical: boolean;
}

/** What the two stores have in common. */
interface ExampleStore {
  readonly length: number;
  reorder(order: Int32Array): void;
}

interface Fill {
  /** Prepares one row and keeps it unless it is dropped. */
  readonly add: (row: Parameters<typeof readPreferenceRow>[0]) => Promise<Outcome>;
  readonly unit: "pair" | "sequence";
  /** What helps where nothing is left to score. */
  readonly advice: string;
}

/** Loads a pool; `kept` receives the numbers of the rows that were not dropped. */
async function fillPool(
  pool: "train" | "test",
  sources: readonly Source[],
  { add, unit, advice }: Fill,
  options: LoadOptions,
  notices: string[],
  kept: number[],
): Promise<PoolCounts> {
  const counts: PoolCounts = { rows: 0, dropped: 0, truncated: 0, identical: 0 };
  let firstDropped = "";
  let turn = performance.now();
  for await (const row of rowsOf(sources)) {
    const outcome = await add(row);
    if (!outcome.dropped) kept.push(counts.rows);
    counts.rows += 1;
    if (outcome.truncated) counts.truncated += 1;
    if (outcome.dropped) {
      if (counts.dropped === 0) firstDropped = `${row.file}:${row.line}`;
      counts.dropped += 1;
    } else if (outcome.identical) {
      counts.identical += 1;
    }
    if (performance.now() - turn > TURN_MS) {
      options.onProgress?.({ pool, rows: counts.rows });
      await setImmediate();
      turn = performance.now();
    }
  }
  options.onProgress?.({ pool, rows: counts.rows });
  const of = `of ${counts.rows} ${pool} ${unit}s`;
  if (counts.dropped > 0) {
    notices.push(
      `${counts.dropped} ${of} left out: no token to score is left after truncation (first: ` +
        `${firstDropped}); ${advice}`,
    );
  }
  if (counts.truncated > 0) {
    notices.push(`${counts.truncated} ${of} were cut to the length limits`);
  }
  if (counts.identical > 0) {
    notices.push(
      `${counts.identical} ${of} have the same tokens as chosen and as rejected and teach nothing`,
    );
  }
  return counts;
}

/**
 * The reference's `shuffle(seed=42)` of a pool: the permutation of all rows that were read, without those that were
 * dropped, as positions in the store.
 */
function poolOrder(rows: number, kept: readonly number[]): Int32Array {
  const place = new Int32Array(rows).fill(-1);
  for (const [i, row] of kept.entries()) place[row] = i;
  return numpyPermutation(rows, POOL_SEED)
    .map((row) => place[row] as number)
    .filter((i) => i >= 0);
}

async function load<Store extends ExampleStore>(
  config: DataConfig,
  options: LoadOptions,
  makeFill: (preparer: Preparer) => { store: Store; fill: Fill },
): Promise<LoadedData<Store>> {
  const mix = await resolveMix(config, options.baseDir);
  const { modelDir, modelName = modelDir, baseDir } = options;
  const preparer = createPreparer(config, modelDir, { modelName, baseDir });
  const notices: string[] = [];
  const train = makeFill(preparer);
  const test = makeFill(preparer);
  const fill = async (pool: "train" | "test", sources: readonly Source[]): Promise<PoolCounts> => {
    const { store, fill } = pool === "train" ? train : test;
    const kept: number[] = [];
    const counts = await fillPool(pool, sources, fill, options, notices, kept);
    if (config.shuffle) store.reorder(poolOrder(counts.rows, kept));
    return counts;
  };
  const counts = {
    train: await fill("train", mix.train),
    test: await fill("test", options.needTest ? mix.test : []),
  };
  if (train.store.length === 0) {
    const { rows, dropped } = counts.train;
    const unit = train.fill.unit;
    throw new DataError(
      rows === 0
        ? `dataset_mixer: expected rows to train on, found none in ${Object.keys(config.datasetMixer).join(", ") || "an empty mixer"}`
        : `dataset_mixer: all ${dropped} train ${unit}s were left out: no token to score is left after truncation`,
      {
        hint:
          rows === 0
            ? "give a file, or a folder with a file for a train split of dataset_splits, and a fraction above 0"
            : train.fill.advice,
      },
    );
  }
  if (options.needTest && counts.test.rows === 0) {
    notices.push("there are no test rows (test.jsonl, a test split): nothing is evaluated");
  }
  return {
    train: train.store,
    test: test.store,
    counts,
    notices: [...mix.notices, ...preparer.notices, ...notices],
    chatTemplate: await preparer.templateToSave(),
  };
}

function sameIds(a: Int32Array, b: Int32Array): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}

/**
 * Reads, renders and tokenizes the preference pairs of a recipe, data set after data set. Each pool is then
 * shuffled as a whole as the reference does it, unless `shuffle` is false. Pairs with a side that has no token to
 * score are left out and counted. Gives the event loop a turn every 20 ms.
 *
 * @example
 * const { train } = await loadPreferenceData(config, { modelDir, baseDir: ".", needTest: false });
 * console.log(train.length, train.pair(0).chosen.ids);
 */
export function loadPreferenceData(
  config: DataConfig,
  options: LoadOptions,
): Promise<LoadedData<PairStore>> {
  return load(config, options, (preparer) => {
    const store = new PairStore();
    const add: Fill["add"] = async (raw) => {
      const row = readPreferenceRow(raw);
      const { pair, truncated, dropped } = await preparer.pair(row);
      if (!dropped) store.append(pair, row.where);
      const identical = sameIds(pair.chosen.ids, pair.rejected.ids);
      return { dropped, truncated: truncated.length > 0, identical };
    };
    const cutsPrompts = config.dataSemantics === "reference";
    const advice = `raise max_length${cutsPrompts ? " or lower max_prompt_length" : ""}`;
    return { store, fill: { add, unit: "pair", advice } };
  });
}

/** Reads, renders and tokenizes the rows of a recipe for next-token training; see {@link loadPreferenceData}. */
export function loadSftData(
  config: DataConfig,
  options: LoadOptions,
): Promise<LoadedData<SequenceStore>> {
  return load(config, options, (preparer) => {
    const store = new SequenceStore();
    const add: Fill["add"] = async (raw) => {
      const row = readSftRow(raw, config.textColumn);
      const { sequence, truncated, dropped } = await preparer.sequence(row);
      if (!dropped) store.append(sequence, row.where);
      return { dropped, truncated: truncated.length > 0, identical: false };
    };
    return { store, fill: { add, unit: "sequence", advice: "raise max_length" } };
  });
}
