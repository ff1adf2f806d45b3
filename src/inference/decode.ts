import type { PackedBatch } from "../data/types.js";
import type { HeadGroup, ModelShape } from "../model/index.js";
import type { Tensor } from "../native/index.js";
import type { Session } from "../train/session.js";
import type { CachedAttention, KvCache } from "./kv-cache.js";
import { greedy, type Sampler } from "./sample.js";

/** A prompt, and its answer as far as it is known. */
export interface Sequence {
  /** What the sampler knows it by. */
  readonly row: number;
  readonly prompt: Int32Array;
  /** First cache row; prompt and longest answer follow. */
  readonly cache: number;
  readonly answer: number[];
}

/** How sequences are continued. */
export interface DecodeOptions {
  /** Longest answer in tokens. */
  readonly maxNewTokens: number;
  /** Most tokens that the session runs at once; no prompt is longer. */
  readonly maxTokens: number;
  /** Default: the most probable token. */
  readonly sampler?: Sampler;
  /** Ids that end an answer; they are part of it. */
  readonly eosIds?: readonly number[];
  /** Called before every forward pass; what it throws ends the work. */
  readonly beforePass?: () => void;
}

/**
 * Appends new tokens to the answers of a batch: its prompts packed side by side, then a token of every sequence
 * that has not ended per forward pass. The session's buffers are overwritten, the weights are only read, so that
 * a model in training can answer between two steps.
 */
export async function continueSequences(
  session: Session,
  shape: ModelShape,
  keys: KvCache,
  batch: readonly Sequence[],
  { maxNewTokens, maxTokens, sampler = greedy, eosIds = [], beforePass }: DecodeOptions,
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
    beforePass?.();
    const { packed, slots } = packPrompts(group);
    active.push(
      ...next(group, await step(session, shape, packed, keys.prefill(slots), group, sampler)),
    );
  }
  while (active.length > 0) {
    beforePass?.();
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
