import * as z from "zod";

/** Length limits used when a recipe gives none, as in the reference's trainer (with a notice). */
export const DEFAULT_MAX_LENGTH = 512;
export const DEFAULT_MAX_PROMPT_LENGTH = 128;

/**
 * The data part of a recipe. A plain object of fields, so that `config/` can compose it with the
 * other parts into one strict object. In YAML the keys are snake_case.
 */
export const dataFields = {
  /** Data sets and the fraction of each train split to use: the first ⌊fraction · rows⌋ rows. */
  datasetMixer: z
    .record(z.string(), z.number().min(0).max(1))
    .describe(
      "Preference files or folders (train.jsonl, test.jsonl inside) and the fraction, 0 to 1, of each train split to use.",
    ),
  /** Splits to read. A name with "train" feeds training, one with "test" evaluation. */
  datasetSplits: z
    .array(z.string())
    .default(["train", "test"])
    .describe('Splits to read; a name with "train" feeds training, one with "test" evaluation.'),
  /** Longest sequence in tokens, prompt and response together. */
  maxLength: z
    .int()
    .positive()
    .nullish()
    .describe(
      `Longest sequence in tokens, prompt and response together (${DEFAULT_MAX_LENGTH}; twice max_prompt_length where that leaves no room in it).`,
    ),
  /** Tokens kept of a prompt whose pair is too long; `data_semantics: corrected` keeps as many as fit. */
  maxPromptLength: z
    .int()
    .positive()
    .nullish()
    .describe(
      `Tokens kept of a prompt whose pair is too long (${DEFAULT_MAX_PROMPT_LENGTH}); data_semantics corrected keeps as many as fit.`,
    ),
  /** Which end of a prompt that is too long is kept. */
  truncationMode: z
    .enum(["keep_end", "keep_start"])
    .default("keep_end")
    .describe("Which end of a prompt that is too long is kept."),
  /** Rules for rendering, tokenization, truncation and labels of pairs; see docs/data-semantics.md. */
  dataSemantics: z
    .enum(["reference", "corrected"])
    .default("reference")
    .describe(
      "How pairs become strings, ids and labels: reference is the SimPER reference's way, bit for bit; corrected mends its faults (docs/data-semantics.md).",
    ),
  /** A Jinja template, or the path of a file with one, used instead of the model's own. */
  chatTemplate: z
    .string()
    .nullish()
    .describe("A Jinja template, or the path of a file with one, used instead of the model's own."),
  /** Start a conversation with an empty system message when its template knows system messages. */
  autoInsertEmptySystemMsg: z
    .boolean()
    .default(true)
    .describe("Start prompts with an empty system message when the chat template knows them."),
  /**
   * Shuffle the pools as the reference does (NumPy's permutation of seed 42), then the pairs by `seed` in every
   * epoch; `false` keeps the order of the files.
   */
  shuffle: z
    .boolean()
    .default(true)
    .describe(
      "Shuffle the data once as the reference does, then by seed in every epoch; false keeps the order of the files.",
    ),
  /** Compute the prompt of a pair once for both responses. Changes speed, never the loss. */
  prefixSharing: z
    .boolean()
    .default(true)
    .describe("Compute the prompt of a pair once for both responses."),
  /** Tokens computed at once. Unset: as many as the memory plan allows. */
  maxTokensPerMicroBatch: z
    .int()
    .positive()
    .nullish()
    .describe("Tokens computed at once; unset: as many as the memory plan allows."),
  /** The column of plain text in rows for `loss_type: sft`. */
  textColumn: z
    .string()
    .default("text")
    .describe("Column of plain text in rows for loss_type sft."),
  /** One name for each data set of the mixer: the sub-folder in which its files are. */
  datasetConfigs: z
    .array(z.string())
    .nullish()
    .describe("One for each data set: the sub-folder of it that holds the files of its splits."),
  /** Known from the reference's recipes; rows are tokenized by one thread as they are read. */
  preprocessingNumWorkers: z.int().positive().nullish().describe("Without effect."),
  /** Known from the reference's recipes, where it has no effect either. */
  truncationSide: z.string().nullish().describe("Without effect, as in the reference."),
};

/** Keys that are accepted and change nothing; the CLI names those a recipe sets in one notice. */
export const dataKeysWithoutEffect = ["preprocessingNumWorkers", "truncationSide"] as const;

const dataSchema = z.object(dataFields);

/** The parsed data part of a recipe. */
export type DataConfig = z.infer<typeof dataSchema>;
