import { createHash } from "node:crypto";
import type { Config } from "../config/schema.js";
import {
  type LoadedData,
  type LoadOptions,
  loadPreferenceData,
  loadSftData,
  type PoolCounts,
} from "../data/dataset.js";
import { pairBatch, pairTokens, sequenceBatch } from "../data/pack.js";
import type { PairStore, SequenceStore } from "../data/store.js";
import { IGNORE, type TokenizedSequence } from "../data/types.js";
import { DataError } from "../errors.js";
import { losses } from "../loss/index.js";
import { ONE_RANK, type RankBatches, type RankPlace, rankBatches } from "./rank-batches.js";

/** The examples of a split, pairs or sequences, as the trainer needs them. */
export interface ExampleSet {
  readonly count: number;
  /** Bytes held in memory. */
  readonly bytes: number;
  /** Tokens that the model runs for example `i`, and tokens of its longest sequence. */
  readonly computedTokens: Int32Array;
  readonly longestSequence: number;
  /** Tokens of the sequences of example `i`: those of a prompt that a pair shares count twice. */
  readonly realTokens: Int32Array;
  /** Tokens of example `i` that are scored. */
  readonly scoredTokens: Int32Array;
  /** Those of its chosen response; of a plain sequence, all. */
  readonly chosenTokens: Int32Array;
  /** `file:line` of example `i`. */
  where(i: number): string;
  /** Says of two ranks whether they read the same examples: tokens, labels and order. */
  digest(): string;
  /** The three texts of pair `i`, as token ids; absent for plain sequences. */
  parts?(i: number): PairParts;
  /** Packs examples into micro-batches of at most `maxTokens` tokens: those of one rank, by default the only one. */
  pack(indices: ArrayLike<number>, maxTokens: number, place?: RankPlace): RankBatches;
}

/** Prompt and responses of a pair: the chosen sequence up to its first scored token, and what is scored. */
export type PairParts = Readonly<Record<"prompt" | "chosen" | "rejected", Int32Array>>;

/** The data of a run. */
export interface RunData {
  readonly train: ExampleSet;
  readonly test: ExampleSet;
  readonly counts: { readonly train: PoolCounts; readonly test: PoolCounts };
  readonly notices: readonly string[];
  /** The chat template to save with the model; `undefined` where it is the model's own or there is none. */
  readonly chatTemplate: string | undefined;
}

/** Loads what the recipe's loss trains on. @throws DataError naming file and line of what cannot be used. */
export async function loadExamples(
  config: Config,
  vocabSize: number,
  given: LoadOptions,
): Promise<RunData> {
  const options = { modelName: config.modelNameOrPath, ...given };
  if (losses[config.lossType].examples === "sequences") {
    const data = await loadSftData(config, options);
    return wrap(data, (store) => sequenceSet(store, vocabSize));
  }
  const data = await loadPreferenceData(config, options);
  return wrap(data, (store) => pairSet(store, config.prefixSharing, vocabSize));
}

function wrap<Store>(data: LoadedData<Store>, examples: (store: Store) => ExampleSet): RunData {
  const { train, test, ...rest } = data;
  return { ...rest, train: examples(train), test: examples(test) };
}

function pairSet(store: PairStore, prefixSharing: boolean, vocabSize: number): ExampleSet {
  const computedTokens = new Int32Array(store.length);
  const realTokens = new Int32Array(store.length);
  const scoredTokens = new Int32Array(store.length);
  const chosenTokens = new Int32Array(store.length);
  let longestSequence = 0;
  for (let i = 0; i < store.length; i++) {
    const pair = store.pair(i);
    checkIds(pair.chosen.ids, vocabSize, `${store.where(i)}: chosen`);
    checkIds(pair.rejected.ids, vocabSize, `${store.where(i)}: rejected`);
    computedTokens[i] = pairTokens(pair, prefixSharing);
    realTokens[i] = pair.chosen.ids.length + pair.rejected.ids.length;
    chosenTokens[i] = scored(pair.chosen);
    scoredTokens[i] = chosenTokens[i]! + scored(pair.rejected);
    longestSequence = Math.max(longestSequence, pair.chosen.ids.length, pair.rejected.ids.length);
  }
  return {
    count: store.length,
    bytes: store.bytes,
    computedTokens,
    longestSequence,
    realTokens,
    scoredTokens,
    chosenTokens,
    where: (i) => store.where(i),
    digest: () => digestOf(store.length, (i) => Object.values(store.pair(i))),
    parts: (i) => {
      const { chosen, rejected } = store.pair(i);
      const first = (side: TokenizedSequence) => side.labels.findIndex((label) => label !== IGNORE);
      return {
        prompt: chosen.ids.subarray(0, first(chosen)),
        chosen: chosen.ids.subarray(first(chosen)),
        rejected: rejected.ids.subarray(first(rejected)),
      };
    },
    pack: (indices, maxTokens, place = ONE_RANK) => {
      const where = (i: number) => store.where(indices[i]!);
      const lengths = Array.from(indices, (example) => computedTokens[example]!);
      return rankBatches(lengths, { maxTokens, where, place, responses: 2 }, (members) =>
        pairBatch(
          members.map((i) => [i, store.pair(indices[i]!)]),
          { prefixSharing, where },
        ),
      );
    },
  };
}

function sequenceSet(store: SequenceStore, vocabSize: number): ExampleSet {
  const scoredTokens = new Int32Array(store.length);
  for (let i = 0; i < store.length; i++) {
    const sequence = store.sequence(i);
    checkIds(sequence.ids, vocabSize, store.where(i));
    scoredTokens[i] = scored(sequence);
  }
  const computedTokens = Int32Array.from({ length: store.length }, (_, i) => store.tokens(i));
  return {
    count: store.length,
    bytes: store.bytes,
    computedTokens,
    longestSequence: computedTokens.reduce((longest, n) => Math.max(longest, n), 0),
    realTokens: computedTokens,
    scoredTokens,
    chosenTokens: scoredTokens,
    where: (i) => store.where(i),
    digest: () => digestOf(store.length, (i) => [store.sequence(i)]),
    pack: (indices, maxTokens, place = ONE_RANK) => {
      const where = (i: number) => store.where(indices[i]!);
      const lengths = Array.from(indices, (example) => computedTokens[example]!);
      return rankBatches(lengths, { maxTokens, where, place, responses: 1 }, (members) =>
        sequenceBatch(
          members.map((i) => [i, store.sequence(indices[i]!)]),
          { where },
        ),
      );
    },
  };
}

/** Hash of all sequences of `count` examples, their lengths included. */
function digestOf(count: number, sequences: (i: number) => readonly TokenizedSequence[]): string {
  const hash = createHash("sha256");
  const add = (values: Int32Array) =>
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  for (let i = 0; i < count; i++) {
    for (const { ids, labels } of sequences(i)) {
      add(Int32Array.of(ids.length));
      add(ids);
      add(labels);
    }
  }
  return hash.digest("hex").slice(0, 16);
}

/** @throws DataError naming the first id that the vocabulary does not have. */
export function checkIds(ids: ArrayLike<number>, vocabSize: number, where: string): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new DataError(
      `${where}: token ${i} has the id ${id}, expected a whole number from 0 to ${vocabSize - 1}`,
      { hint: "the rows were tokenized for another model, or the tokenizer is not this model's" },
    );
  }
}

/** Label 0 is never scored: nothing precedes it. */
function scored({ labels }: TokenizedSequence): number {
  let count = 0;
  for (let i = 1; i < labels.length; i++) if (labels[i] !== IGNORE) count++;
  return count;
}
