import { type ChatTemplate, loadChatTemplate } from "../data/chat.js";
import { loadTokenizer, readJsonObject, type Tokenizer } from "../data/tokenizer.js";
import type { Message } from "../data/types.js";
import type { ModelShape } from "../model/index.js";
import { type GenerateOptions, generate } from "./generate.js";
import {
  disposeModel,
  keepWeights,
  type ModelOptions,
  type ModelSource,
  readModel,
} from "./model.js";
import { type Score, type ScoreOptions, score } from "./score.js";

/**
 * A model in memory with its tokenizer and chat template: text in, text out. Owns the weights and a device;
 * `dispose()` frees them. Calls may overlap: they share weights and nothing else.
 */
export class LoadedModel implements ModelSource {
  readonly dir: string;
  readonly shape: ModelShape;
  readonly config: Readonly<Record<string, unknown>>;
  /** Ids that end an answer: generation_config.json, else config.json, else the tokenizer's. */
  readonly eosIds: readonly number[];
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate;

  /** @internal {@link loadModel} makes one. */
  constructor(
    source: ModelSource,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    eosIds: readonly number[],
  ) {
    this.dir = source.dir;
    this.shape = source.shape;
    this.config = source.config;
    this.eosIds = eosIds;
    this.#tokenizer = tokenizer;
    this.#template = template;
  }

  /** Ids of a text, with the special tokens that the tokenizer adds (often BOS). */
  encode(text: string): number[] {
    return this.#tokenizer.encode(text, { addSpecialTokens: true });
  }

  /** Ids of a conversation rendered by the chat template, with the assistant's turn opened. */
  encodeChat(messages: readonly Message[]): number[] {
    const text = this.#template.render(messages, "messages", { addGenerationPrompt: true });
    return this.#tokenizer.encode(text, { addSpecialTokens: false });
  }

  /** Text of ids, without special tokens. */
  decode(ids: Iterable<number>): string {
    return this.#tokenizer.decode(ids, { skipSpecialTokens: true });
  }

  /**
   * Log-probabilities of each sequence, in order. {@link score} yields them as they come.
   *
   * @param sequences token ids of each sequence
   * @throws DataError naming the row and the id that the vocabulary does not have.
   */
  score(
    sequences: readonly ArrayLike<number>[],
    options: Omit<ScoreOptions, keyof ModelOptions> = {},
  ): Promise<Score[]> {
    return collect(score(this, sequences, options));
  }

  /**
   * New tokens of each prompt, in order. {@link generate} yields them as they come.
   *
   * @param prompts token ids of each prompt
   * @param options answers end at {@link LoadedModel.eosIds} unless `eosIds` says otherwise
   * @throws DataError for an empty prompt or an id that the vocabulary does not have.
   */
  generate(
    prompts: readonly ArrayLike<number>[],
    options: Omit<GenerateOptions, keyof ModelOptions>,
  ): Promise<number[][]> {
    return collect(generate(this, prompts, { eosIds: this.eosIds, ...options }));
  }

  /** Frees the weights. What still runs ends with an error, and so does every later call. */
  dispose(): void {
    disposeModel(this);
  }

  /** {@link LoadedModel.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Reads a model directory, its tokenizer and chat template, and keeps the weights in memory until the model is
 * disposed.
 *
 * @param dir model directory in Hugging Face format
 * @throws CheckpointError when it is no model of a supported family; DataError when the tokenizer is missing
 *   or cannot be used; MemoryError when the weights do not fit.
 * @example
 * const model = await loadModel("outputs/quickstart");
 * try {
 *   const prompt = model.encodeChat([{ role: "user", content: "What is 17 + 25?" }]);
 *   const [answer] = await model.generate([prompt], { maxNewTokens: 32 });
 *   console.log(model.decode(answer));
 * } finally {
 *   model.dispose();
 * }
 */
export async function loadModel(dir: string, options: ModelOptions = {}): Promise<LoadedModel> {
  const source = await readModel(dir);
  const tokenizer = await loadTokenizer(dir);
  const template = await loadChatTemplate(dir, tokenizer.specialTokens);
  const eosIds = await endOfSequence(dir, source.config, tokenizer);
  const model = new LoadedModel(source, tokenizer, template, eosIds);
  await keepWeights(model, options);
  return model;
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of source) values.push(value);
  return values;
}

/** Ids that end an answer, as transformers has it: generation_config.json, else config.json, else the tokenizer. */
export async function endOfSequence(
  dir: string,
  config: ModelSource["config"],
  tokenizer: Tokenizer | undefined,
): Promise<number[]> {
  const generation = await readJsonObject(`${dir}/generation_config.json`);
  const value = generation?.eos_token_id ?? config.eos_token_id ?? tokenizer?.eos?.id ?? [];
  return (Array.isArray(value) ? value : [value]).filter((id) => typeof id === "number");
}
