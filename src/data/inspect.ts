import { DataError } from "../errors.js";
import { resolveMix, rowsOf } from "./mix.js";
import { createPreparer, type PreparedPair, type Preparer } from "./prepare.js";
import { type PreferenceRow, readPreferenceRow, readSftRow } from "./rows.js";
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
  /** Show pairs under the other data semantics, too. */
  readonly both?: boolean;
  /** Called with what the user should know about the data, as soon as it shows. */
  readonly onNotice?: (notice: string) => void;
}

/** The two ways in which pairs become strings, ids and labels. */
export type Semantics = DataConfig["dataSemantics"];

/** A pair under one data semantics. */
export interface InspectedTokens {
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

/**
 * A preference row as the model sees it. Written as JSON it can be read again as a tokenized row. With `both` it says
 * under which semantics, and `reference` or `corrected` holds the row under the other, or why that refuses it.
 */
export interface InspectedPair
  extends InspectedTokens,
    Partial<Record<Semantics, InspectedTokens | { readonly error: string }>> {
  readonly id?: unknown;
  readonly data_semantics?: Semantics;
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

function otherThan(semantics: Semantics): Semantics {
  return semantics === "reference" ? "corrected" : "reference";
}

/** A preparer, and how to pass on what it has noticed since the last time. */
function preparerOf(config: DataConfig, options: InspectOptions): [Preparer, () => void] {
  const { modelDir, modelName = modelDir, baseDir, onNotice } = options;
  const preparer = createPreparer(config, modelDir, { modelName, baseDir });
  let told = 0;
  const tell = (): void => {
    for (const notice of preparer.notices.slice(told)) onNotice?.(notice);
    told = preparer.notices.length;
  };
  return [preparer, tell];
}

function viewOf({ texts, pair, truncated, dropped }: PreparedPair): InspectedTokens {
  return {
    prompt: texts.prompt ?? null,
    chosen: texts.chosen ?? null,
    rejected: texts.rejected ?? null,
    chosen_input_ids: Array.from(pair.chosen.ids),
    chosen_labels: Array.from(pair.chosen.labels),
    rejected_input_ids: Array.from(pair.rejected.ids),
    rejected_labels: Array.from(pair.rejected.labels),
    truncated,
    ...(dropped ? { dropped: true as const } : {}),
  };
}

/** The row under the other semantics; what that refuses does not end the listing. */
async function otherView(
  preparer: Preparer,
  row: PreferenceRow,
): Promise<InspectedTokens | { readonly error: string }> {
  try {
    return viewOf(await preparer.pair(row));
  } catch (error) {
    if (error instanceof DataError) return { error: error.message };
    throw error;
  }
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
  for (const notice of mix.notices) options.onNotice?.(notice);
  const semantics = config.dataSemantics;
  const other = otherThan(semantics);
  const [preparer, tell] = preparerOf(config, options);
  const [otherPreparer] = preparerOf({ ...config, dataSemantics: other }, options);
  const tokenizer = optionalTokenizer(preparer.tokenizer);
  for await (const raw of rowsOf(mix[options.split])) {
    const row = readPreferenceRow(raw);
    const prepared = await preparer.pair(row);
    const { texts, pair } = prepared;
    const decoded: Partial<InspectedTokens> = {};
    if (texts.prompt === undefined || texts.chosen === undefined || texts.rejected === undefined) {
      const left = decodeSides(await tokenizer(), pair.chosen);
      const right = decodeSides(await tokenizer(), pair.rejected);
      const sides = { prompt: left.prompt, chosen: left.response, rejected: right.response };
      Object.assign(decoded, sides, texts);
    }
    tell();
    yield {
      ...("id" in row ? { id: row.id } : {}),
      ...viewOf(prepared),
      ...decoded,
      ...(options.both ? { data_semantics: semantics } : {}),
      // Rows that came tokenized are the same under both.
      ...(options.both && row.kind !== "tokens"
        ? { [other]: await otherView(otherPreparer, row) }
        : {}),
    };
  }
}

/** The rows of a split for `loss_type: sft`, as `inspectPreferenceData`. */
export async function* inspectSftData(
  config: DataConfig,
  options: InspectOptions,
): AsyncGenerator<InspectedSequence> {
  const mix = await resolveMix(config, options.baseDir);
  for (const notice of mix.notices) options.onNotice?.(notice);
  const [preparer, tell] = preparerOf(config, options);
  const tokenizer = optionalTokenizer(preparer.tokenizer);
  for await (const raw of rowsOf(mix[options.split])) {
    const row = readSftRow(raw, config.textColumn);
    const { text, sequence, truncated, dropped } = await preparer.sequence(row);
    tell();
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
