import { DataError } from "../errors.js";
import { resolveMix, rowsOf } from "./mix.js";
import { createPreparer } from "./prepare.js";
import { readPreferenceRow, readSftRow } from "./rows.js";
import type { DataConfig } from "./schema.js";
import type { Tokenizer } from "./tokenizer.js";
import { IGNORE, type TokenizedSequence } from "./types.js";

/** Which rows to show, and where their files are. */
export interface InspectOptions {
  readonly modelDir: string;
  /** `model_name_or_path` of the recipe, in which the reference looks for "mistral"; `modelDir` by default. */
  readonly modelName?: string;
  readonly baseDir: string;
  readonly split: "train" | "test";
}

/** A preference row as the model sees it. Written as JSON it can be read again as a tokenized row. */
export interface InspectedPair {
  readonly id?: unknown;
  readonly prompt: string | null;
  readonly chosen: string | null;
  readonly rejected: string | null;
  readonly chosen_input_ids: readonly number[];
  readonly chosen_labels: readonly number[];
  readonly rejected_input_ids: readonly number[];
  readonly rejected_labels: readonly number[];
  /** Parts that lost tokens: "prompt" (of either side), "chosen", "rejected". */
  readonly truncated: readonly string[];
  /** Present on a row that training leaves out: a side has no token to score. */
  readonly dropped?: true;
}

/** A row for next-token training as the model sees it. */
export interface InspectedSequence {
  readonly id?: unknown;
  readonly text: string | null;
  readonly input_ids: readonly number[];
  readonly labels: readonly number[];
  readonly truncated: readonly string[];
  readonly dropped?: true;
}

/** Text of the unscored beginning and of the rest of a sequence that came tokenized. */
function decodeSides(
  tokenizer: Tokenizer | undefined,
  { ids, labels }: TokenizedSequence,
): { prompt: string | null; response: string | null } {
  if (tokenizer === undefined) return { prompt: null, response: null };
  const first = labels.findIndex((label) => label !== IGNORE);
  const boundary = first < 0 ? ids.length : first;
  const text = (part: Int32Array): string => tokenizer.decode(part, { skipSpecialTokens: false });
  return { prompt: text(ids.subarray(0, boundary)), response: text(ids.subarray(boundary)) };
}

/** The tokenizer, for rows that came tokenized: a model directory need not have one then. */
function optionalTokenizer(load: () => Promise<Tokenizer>): () => Promise<Tokenizer | undefined> {
  return async () => {
    try {
      return await load();
    } catch (error) {
      if (error instanceof DataError) return undefined;
      throw error;
    }
  };
}

/**
 * The preference rows of a split, one at a time and in file order: texts, ids, labels and what was cut.
 * Rows that training leaves out appear too, marked `dropped`. Stop early to read no more than needed.
 */
export async function* inspectPreferenceData(
  config: DataConfig,
  options: InspectOptions,
): AsyncGenerator<InspectedPair> {
  const mix = await resolveMix(config, options.baseDir);
  const { modelDir, modelName = modelDir, baseDir } = options;
  const preparer = createPreparer(config, modelDir, { modelName, baseDir });
  const tokenizer = optionalTokenizer(preparer.tokenizer);
  for await (const raw of rowsOf(mix[options.split])) {
    const row = readPreferenceRow(raw);
    const { texts, pair, truncated, dropped } = await preparer.pair(row);
    let { prompt, chosen, rejected }: Partial<Record<string, string | null>> = texts;
    if (prompt === undefined || chosen === undefined || rejected === undefined) {
      const left = decodeSides(await tokenizer(), pair.chosen);
      const right = decodeSides(await tokenizer(), pair.rejected);
      prompt ??= left.prompt;
      chosen ??= left.response;
      rejected ??= right.response;
    }
    yield {
      ...("id" in row ? { id: row.id } : {}),
      prompt,
      chosen,
      rejected,
      chosen_input_ids: Array.from(pair.chosen.ids),
      chosen_labels: Array.from(pair.chosen.labels),
      rejected_input_ids: Array.from(pair.rejected.ids),
      rejected_labels: Array.from(pair.rejected.labels),
      truncated,
      ...(dropped ? { dropped: true as const } : {}),
    };
  }
}

/** The rows of a split for `loss_type: sft`, as `inspectPreferenceData`. */
export async function* inspectSftData(
  config: DataConfig,
  options: InspectOptions,
): AsyncGenerator<InspectedSequence> {
  const mix = await resolveMix(config, options.baseDir);
  const { modelDir, modelName = modelDir, baseDir } = options;
  const preparer = createPreparer(config, modelDir, { modelName, baseDir });
  const tokenizer = optionalTokenizer(preparer.tokenizer);
  for await (const raw of rowsOf(mix[options.split])) {
    const row = readSftRow(raw, config.textColumn);
    const { text, sequence, truncated, dropped } = await preparer.sequence(row);
    yield {
      ...("id" in row ? { id: row.id } : {}),
      text: text ?? (await tokenizer())?.decode(sequence.ids, { skipSpecialTokens: false }) ?? null,
      input_ids: Array.from(sequence.ids),
      labels: Array.from(sequence.labels),
      truncated,
      ...(dropped ? { dropped: true as const } : {}),
    };
  }
}
