import { type ChatTemplate, loadChatTemplate } from "../data/chat.js";
import { loadTokenizer, readJsonObject, type Tokenizer } from "../data/tokenizer.js";
import type { Message } from "../data/types.js";
import { type ModelSource, readModel } from "./model.js";

/** A model directory with its tokenizer and chat template: text in, text out. */
export interface LoadedModel extends ModelSource {
  /** Ids of a text, with the special tokens that the tokenizer adds (often BOS). */
  encode(text: string): number[];
  /** Ids of a conversation rendered by the chat template, with the assistant's turn opened. */
  encodeChat(messages: readonly Message[]): number[];
  /** Text of ids, without special tokens. */
  decode(ids: Iterable<number>): string;
  /** Ids that end an answer: generation_config.json, else config.json, else the tokenizer's. */
  readonly eosIds: readonly number[];
}

/**
 * Reads a model directory with its tokenizer and chat template; the weights are read by what it is given to,
 * {@link score} and {@link generate}.
 *
 * @param dir model directory in Hugging Face format
 * @throws CheckpointError when it is no model of a supported family; DataError when the tokenizer is missing
 * or cannot be used.
 * @example
 * const model = await loadModel("outputs/quickstart");
 * const prompt = model.encodeChat([{ role: "user", content: "What is 17 + 25?" }]);
 * const options = { maxNewTokens: 32, eosIds: model.eosIds };
 * for await (const ids of generate(model, [prompt], options)) console.log(model.decode(ids));
 */
export async function loadModel(dir: string): Promise<LoadedModel> {
  const source = await readModel(dir);
  const tokenizer = await loadTokenizer(dir);
  const template: ChatTemplate = await loadChatTemplate(dir, tokenizer.specialTokens);
  return {
    ...source,
    encode: (text) => tokenizer.encode(text, { addSpecialTokens: true }),
    encodeChat(messages) {
      const text = template.render(messages, "messages", { addGenerationPrompt: true });
      return tokenizer.encode(text, { addSpecialTokens: false });
    },
    decode: (ids) => tokenizer.decode(ids, { skipSpecialTokens: true }),
    eosIds: await endOfSequence(dir, source.config, tokenizer),
  };
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
