/** One chat message, as in the `messages`, `chosen` and `rejected` columns of Hugging Face datasets. */
export interface Message {
  /** `system`, `user` or `assistant`, as the chat template has it. */
  readonly role: string;
  /** What is said. */
  readonly content: string;
}

/** Label of a token that is not scored (torch's ignore index, as in the reference pipeline). */
export const IGNORE = -100;

/**
 * One token sequence with its labels: `labels[i]` is `ids[i]` where token `i` is scored and `IGNORE`
 * elsewhere. Label 0 is never scored, because nothing precedes it.
 */
export interface TokenizedSequence {
  readonly ids: Int32Array;
  readonly labels: Int32Array;
}

/** A preference pair ready for packing. */
export interface TokenizedPair {
  readonly chosen: TokenizedSequence;
  readonly rejected: TokenizedSequence;
}

/**
 * A micro-batch of whole examples in one token stream, without padding between them. One without examples has no
 * tokens: a rank that has nothing to do in a slot of its step.
 * Letters: T tokens (computed once each), S segments, N scored rows, R responses, U distinct tokens.
 */
export interface PackedBatch {
  /** (T) token ids. */
  readonly tokens: Int32Array;
  /** (T) positions for RoPE; both branches of a pair continue after the shared prompt. */
  readonly positions: Int32Array;
  /**
   * (S, 4) `{start, end, prefixStart, prefixEnd}`: row `t` in `[start, end)` attends to the keys
   * `[prefixStart, prefixEnd)` and `[start, t]`. Segments are disjoint, ascending and cover [0, T).
   */
  readonly segments: Int32Array;
  /** (N) the row whose logits predict each scored token; at most two entries name the same row. */
  readonly scoredRows: Int32Array;
  /** (N) the token each of those rows should predict. */
  readonly scoredLabels: Int32Array;
  /** (T, 2) inverse of `scoredRows`: the entries (ascending) that name row t; -1 = none. */
  readonly rowSources: Int32Array;
  /** (R, 3) `{begin, end, side}`: range in `scoredRows`, side 0 chosen (or plain text), 1 rejected. */
  readonly responses: Int32Array;
  /** (U) distinct token ids, ascending; (U + 1) offsets into `tokenRows`; (T) rows by token, ascending. */
  readonly uniqueTokens: Int32Array;
  readonly tokenOffsets: Int32Array;
  readonly tokenRows: Int32Array;
  /** Tokens the model would see without prefix sharing: the sum of the sequence lengths. */
  readonly realTokens: number;
  /** Number of pairs (or of plain sequences) in this micro-batch. */
  readonly examples: number;
  /** (examples) which of the examples that were packed each of them is; ascending. */
  readonly members: Int32Array;
}
