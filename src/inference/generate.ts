import type { PackedBatch } from "../data/types.js";
import { DataError } from "../errors.js";
import type { HeadGroup, ModelShape } from "../model/index.js";
import type { Tensor } from "../native/index.js";
import { checkIds } from "../train/examples.js";
import type { Session } from "../train/session.js";
import { type CachedAttention, KvCache } from "./kv-cache.js";
import { type InferenceOptions, type ModelSource, withSession } from "./model.js";
import { greedy, type Sampler } from "./sample.js";

/** How prompts are continued. */
export interface GenerateOptions extends InferenceOptions {
  /** Longest answer in tokens. */
  readonly maxNewTokens: number;
  /** Default: the most probable token. */
  readonly sampler?: Sampler;
  /** Ids that end an answer; they are part of it. None: answers run to `maxNewTokens`. */
  readonly eosIds?: readonly number[];
  /** Name of a prompt in error messages, `file:line` for example; default: `row 3`. */
  readonly where?: (row: number) => string;
}

/** Prompts answered together, and prompt tokens run at once. */
const ROWS = 32;
const TOKENS = 1024;

interface Sequence {
  readonly row: number;
  readonly prompt: Int32Array;
  /** First cache row. */
  readonly cache: number;
  readonly answer: number[];
}

/**
 * Continues prompts with a key/value cache; yields the new tokens of each prompt in order. A model from
 * {@link loadModel} has its weights; with {@link readModel} they are read when the iteration starts and freed
 * when it ends.
 *
 * @param source what {@link loadModel} or {@link readModel} returned
 * @param prompts token ids of each prompt
 * @throws DataError for an empty prompt or an id that the vocabulary does not have.
 * @example
 * const model = await readModel("outputs/quickstart");
 * for await (const ids of generate(model, [[1, 2, 3]], { maxNewTokens: 16 })) console.log(ids);
 */
export async function* generate(
  source: ModelSource,
  prompts: readonly ArrayLike<number>[],
  options: GenerateOptions,
): AsyncGenerator<number[]> {
  const where = options.where ?? ((row: number) => `row ${row}`);
  prompts.forEach((ids, row) => {
    if (ids.length === 0) {
      throw new DataError(`${where(row)}: the prompt is empty, expected at least one token`, {
        hint: "begin the prompt with the tokenizer's BOS token, or leave the row out",
      });
    }
    checkIds(ids, source.shape.vocabSize, where(row));
  });
  const longest = prompts.reduce((most, ids) => Math.max(most, ids.length), 1);
  const positions = longest + options.maxNewTokens;
  const tokens = Math.max(TOKENS, longest);
  const size = { tokens, sequences: ROWS, positions };
  yield* withSession(source, size, options, async function* (session) {
    for (let begin = 0; begin < prompts.length; begin += ROWS) {
      let cache = 0;
      const batch = prompts.slice(begin, begin + ROWS).map((ids, i): Sequence => {
        const prompt = Int32Array.from(ids);
        const sequence = { row: begin + i, prompt, cache, answer: [] };
        cache += prompt.length + options.maxNewTokens;
        return sequence;
      });
      const keys = new KvCache(session, source.shape, cache, Math.ceil(tokens / 16) * 16);
      try {
        await answer(session, source.shape, keys, batch, tokens, options);
      } finally {
        keys.dispose();
      }
      yield* batch.map((sequence) => sequence.answer);
    }
  });
}

async function answer(
  session: Session,
  shape: ModelShape,
  keys: KvCache,
  batch: readonly Sequence[],
  maxTokens: number,
  { maxNewTokens, sampler = greedy, eosIds = [], signal }: GenerateOptions,
): Promise<void> {
  const ended = new Set(eosIds);
  const next = (sequences: readonly Sequence[], chosen: readonly number[]) =>
    sequences.filter((sequence, i) => {
      sequence.answer.push(chosen[i]!);
      return sequence.answer.length < maxNewTokens && !ended.has(chosen[i]!);
    });

  let active: Sequence[] = [];
  if (maxNewTokens === 0) return;
  for (const group of groupsOf(batch, maxTokens)) {
    signal?.throwIfAborted();
    const { packed, slots } = packPrompts(group);
    active.push(
      ...next(group, await step(session, shape, packed, keys.prefill(slots), group, sampler)),
    );
  }
  while (active.length > 0) {
    signal?.throwIfAborted();
    const { packed, slots, ranges } = packTokens(active, shape.slidingWindow);
    const chosen = await step(session, shape, packed, keys.decode(slots, ranges), active, sampler);
    active = next(active, chosen);
  }
}

/** Runs the batch and chooses a token for each of its sequences. */
async function step(
  session: Session,
  shape: ModelShape,
  packed: PackedBatch,
  attend: CachedAttention,
  sequences: readonly Sequence[],
  sampler: Sampler,
): Promise<number[]> {
  const groups: { group: HeadGroup; logits: Promise<Float32Array> }[] = [];
  session.pass.logits(packed, attend, (logits: Tensor, group) => {
    groups.push({ group, logits: session.stream.read(logits) as Promise<Float32Array> });
  });
  const chosen: number[] = [];
  for (const { group, logits } of groups) {
    const values = await logits;
    for (let i = 0; i < group.responses; i++) {
      const row = values.subarray(i * shape.vocabSize, (i + 1) * shape.vocabSize);
      chosen.push(sampler(row, sequences[group.firstResponse + i]!.row));
    }
  }
  return chosen;
}

/** Runs of prompts that fit into one micro-batch. */
function groupsOf(batch: readonly Sequence[], maxTokens: number): Sequence[][] {
  const groups: Sequence[][] = [];
  let tokens = Number.POSITIVE_INFINITY;
  for (const sequence of batch) {
    if (tokens + sequence.prompt.length > maxTokens) {
      groups.push([]);
      tokens = 0;
    }
    groups.at(-1)!.push(sequence);
    tokens += sequence.prompt.length;
  }
  return groups;
}

/** Whole prompts side by side, scored in their last rows; `slots` are their rows of the cache. */
function packPrompts(group: readonly Sequence[]): { packed: PackedBatch; slots: Int32Array } {
  const starts: number[] = [];
  let length = 0;
  for (const { prompt } of group) {
    starts.push(length);
    length += prompt.length;
  }
  const tokens = new Int32Array(length);
  const positions = new Int32Array(length);
  const slots = new Int32Array(length);
  group.forEach(({ prompt, cache }, i) => {
    tokens.set(prompt, starts[i]!);
    for (let t = 0; t < prompt.length; t++) {
      positions[starts[i]! + t] = t;
      slots[starts[i]! + t] = cache + t;
    }
  });
  const segments = group.flatMap(({ prompt }, i) => [starts[i]!, starts[i]! + prompt.length, 0, 0]);
  const last = group.map(({ prompt }, i) => starts[i]! + prompt.length - 1);
  return { packed: inferenceBatch(tokens, positions, segments, last), slots };
}

/** The newest token of each sequence; `ranges` are the cache rows that it sees, its own included. */
function packTokens(active: readonly Sequence[], slidingWindow: number | null) {
  const window = slidingWindow ?? Number.POSITIVE_INFINITY;
  const last = ({ prompt, answer }: Sequence) => prompt.length + answer.length - 1;
  const tokens = Int32Array.from(active, ({ answer }) => answer.at(-1)!);
  const positions = Int32Array.from(active, last);
  const slots = Int32Array.from(active, (sequence) => sequence.cache + last(sequence));
  const ranges = Int32Array.from(
    active.flatMap((sequence) => {
      const length = last(sequence) + 1;
      const seen = Math.min(length, window);
      return [sequence.cache + length - seen, seen];
    }),
  );
  const rows = active.map((_, i) => i);
  return { packed: inferenceBatch(tokens, positions, [], rows), slots, ranges };
}

function inferenceBatch(
  tokens: Int32Array,
  positions: Int32Array,
  segments: readonly number[],
  rows: readonly number[],
): PackedBatch {
  const none = new Int32Array(0);
  return {
    tokens,
    positions,
    segments: Int32Array.from(segments),
    scoredRows: Int32Array.from(rows),
    scoredLabels: new Int32Array(rows.length),
    rowSources: none,
    responses: Int32Array.from(rows.flatMap((_, i) => [i, i + 1, 0])),
    uniqueTokens: none,
    tokenOffsets: none,
    tokenRows: none,
    realTokens: tokens.length,
    examples: rows.length,
    members: Int32Array.from(rows.keys()),
  };
}
