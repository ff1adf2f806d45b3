import { DataError } from "../errors.js";
import { checkIds } from "../train/examples.js";
import { continueSequences, type Sequence } from "./decode.js";
import { KvCache } from "./kv-cache.js";
import { type InferenceOptions, type ModelSource, withSession } from "./model.js";
import type { Sampler } from "./sample.js";

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
        const beforePass = () => options.signal?.throwIfAborted();
        const how = { ...options, maxTokens: tokens, beforePass };
        await continueSequences(session, source.shape, keys, batch, how);
      } finally {
        keys.dispose();
      }
      yield* batch.map((sequence) => sequence.answer);
    }
  });
}
