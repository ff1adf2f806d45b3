import { packLengths, packSequences } from "../data/pack.js";
import { checkIds } from "../train/examples.js";
import { type InferenceOptions, type ModelSource, withSession } from "./model.js";

/** Log-probabilities of one sequence. */
export interface Score {
  /** (n − 1) natural log of p(ids[t + 1] | ids[0..t]). */
  readonly logps: Float32Array;
  /** Sum of logps. */
  readonly sum: number;
  /** Their mean; 0 for a row without logps. */
  readonly mean: number;
}

/** How sequences are scored. */
export interface ScoreOptions extends InferenceOptions {
  /** Name of a sequence in error messages, `file:line` for example; default: `row 3`. */
  readonly where?: (row: number) => string;
}

/** Tokens run at once; more gains nothing on a CPU. */
const TOKENS = 4096;
/** Rows packed together: results of a chunk are handed out in order. */
const ROWS = 64;

/**
 * Scores token sequences: log p of each token given those before it. A model from {@link loadModel} has its
 * weights; with {@link readModel} they are read when the iteration starts and freed when it ends.
 *
 * @param source what {@link loadModel} or {@link readModel} returned
 * @param sequences token ids of each sequence
 * @throws DataError naming the row and the id that the vocabulary does not have.
 * @example
 * for await (const { mean } of score(await readModel("outputs/model"), [[1, 2, 3]])) console.log(mean);
 */
export async function* score(
  source: ModelSource,
  sequences: readonly ArrayLike<number>[],
  options: ScoreOptions = {},
): AsyncGenerator<Score> {
  const where = options.where ?? ((row: number) => `row ${row}`);
  sequences.forEach((ids, row) => {
    checkIds(ids, source.shape.vocabSize, where(row));
  });
  const longest = sequences.reduce((most, ids) => Math.max(most, ids.length), 1);
  const total = sequences.reduce((sum, ids) => sum + ids.length, 0);
  const tokens = Math.max(longest, Math.min(TOKENS, total));
  const size = { tokens, sequences: ROWS, positions: longest };
  yield* withSession(source, size, options, async function* (session) {
    for (let begin = 0; begin < sequences.length; begin += ROWS) {
      const chunk = sequences.slice(begin, begin + ROWS);
      // A single token is given, not predicted: it has nothing to score.
      const scored = chunk.flatMap((ids, i) => (ids.length > 1 ? [i] : []));
      const results: Float32Array[] = chunk.map(() => new Float32Array(0));
      const lengths = scored.map((i) => chunk[i]!.length);
      for (const members of packLengths(lengths, { maxTokens: tokens })) {
        const batch = members.map((member) => {
          const ids = Int32Array.from(chunk[scored[member]!]!);
          return { ids, labels: ids };
        });
        options.signal?.throwIfAborted();
        const [packed] = packSequences(batch, { maxTokens: tokens });
        const logps = await session.pass.score(packed!);
        let offset = 0;
        for (const member of members) {
          const length = lengths[member]! - 1;
          results[scored[member]!] = logps.slice(offset, offset + length);
          offset += length;
        }
      }
      yield* results.map(summarize);
    }
  });
}

function summarize(logps: Float32Array): Score {
  const sum = logps.reduce((total, logp) => total + logp, 0);
  return { logps, sum, mean: logps.length > 0 ? sum / logps.length : 0 };
}
