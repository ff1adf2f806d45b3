/** The files that make a Hugging Face tokenizer of a byte-level BPE vocabulary. */
import { splitPattern } from "./bpe.mjs";

/** Special tokens, which take the first ids. */
export const specialTokens = ["<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];

/**
 * `<|bos|>` once, then each message as `<|role|>text<|end|>`. Nothing follows `<|end|>`, which is the
 * EOS token, so a rendered reply ends in exactly one.
 */
const chatTemplate =
  "{{ bos_token }}" +
  "{% for message in messages %}" +
  "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}" +
  "{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/**
 * @param {{ vocab: readonly string[], merges: readonly [string, string][] }} bpe
 * @returns {Record<string, unknown>} contents of tokenizer.json
 */
export function tokenizerJson({ vocab, merges }) {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: splitPattern }, behavior: "Isolated", invert: false },
        { ...byteLevel, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { ...byteLevel, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries([...specialTokens, ...vocab].map((token, id) => [token, id])),
      merges: merges.map((pair) => pair.join(" ")),
    },
  };
}

/** Contents of tokenizer_config.json. */
export const tokenizerConfig = {
  tokenizer_class: "PreTrainedTokenizerFast",
  bos_token: "<|bos|>",
  eos_token: "<|end|>",
  pad_token: "<|end|>",
  model_max_length: 256,
  clean_up_tokenization_spaces: false,
  chat_template: chatTemplate,
};
