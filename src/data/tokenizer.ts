import { readFile } from "node:fs/promises";
import path from "node:path";
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { DataError } from "../errors.js";

/** A special token: its text and its id. */
export interface SpecialToken {
  readonly text: string;
  readonly id: number;
}

/** Text to ids and back, as the model directory's tokenizer files say. */
export interface Tokenizer {
  /** Ids of `text`; with `addSpecialTokens`, what the tokenizer's post-processor adds (often BOS). */
  encode(text: string, options: { addSpecialTokens: boolean }): number[];
  /** Text of `ids`; no ids, no text. */
  decode(ids: Iterable<number>, options: { skipSpecialTokens: boolean }): string;
  readonly bos: SpecialToken | null;
  readonly eos: SpecialToken | null;
  /** The tokenizer's own post-processor puts BOS in front of a text. */
  readonly addsBos: boolean;
  /** The padding id; the end-of-sequence id where the tokenizer names none. */
  readonly padId: number | null;
  /** Special tokens as chat templates see them: `bos_token`, `eos_token` …, those that exist. */
  readonly specialTokens: Readonly<Record<string, string>>;
  /** What the user should know about this tokenizer. */
  readonly notices: readonly string[];
}

/** The names of special tokens in tokenizer_config.json and special_tokens_map.json. */
const SPECIAL_NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;

/** A JSON object from a file of the model directory; `undefined` when there is no such file. */
export async function readJsonObject(file: string): Promise<Record<string, unknown> | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new DataError(`${file}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new DataError(`${file}: malformed JSON: ${(cause as Error).message}`, {
      hint: "copy the file from the model again",
      cause,
    });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new DataError(`${file}: expected a JSON object`, {
      hint: "copy the file from the model again",
    });
  }
  return value as Record<string, unknown>;
}

/** `"<s>"` and `{"content": "<s>", ...}` both name the token `<s>`. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null && "content" in value) {
    return typeof value.content === "string" ? value.content : undefined;
  }
  return undefined;
}

/** How GPT-2 cuts text into words: what a ByteLevel pre-tokenizer does where `use_regex` is not false. */
const GPT2_WORDS =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

interface PreTokenizerJson {
  readonly type?: unknown;
  readonly add_prefix_space?: unknown;
  readonly use_regex?: unknown;
  readonly pretokenizers?: readonly PreTokenizerJson[];
}

/**
 * @huggingface/tokenizers 0.2.0 takes `\s` of a ByteLevel pre-tokenizer as JavaScript does (U+FEFF in, U+0085 out),
 * of a Split as the Rust library does: the first is written as the second followed by bytes.
 */
function withRustSpaces(json: PreTokenizerJson): PreTokenizerJson {
  if (Array.isArray(json.pretokenizers)) {
    return { ...json, pretokenizers: json.pretokenizers.map(withRustSpaces) };
  }
  if (json.type !== "ByteLevel" || json.use_regex === false || json.add_prefix_space === true) {
    return json;
  }
  const words = {
    type: "Split",
    pattern: { Regex: GPT2_WORDS },
    behavior: "Isolated",
    invert: false,
  };
  return { type: "Sequence", pretokenizers: [words, { ...json, use_regex: false }] };
}

interface AddedTokenJson {
  readonly content?: unknown;
  readonly single_word?: unknown;
}

/**
 * Loads `tokenizer.json` with `tokenizer_config.json` (special tokens; `special_tokens_map.json` where
 * it names none) of a model directory. Throws `DataError` when a file is missing or names a token that
 * the vocabulary lacks.
 */
export async function loadTokenizer(modelDir: string): Promise<Tokenizer> {
  const file = path.join(modelDir, "tokenizer.json");
  const definition = await readJsonObject(file);
  const configFile = path.join(modelDir, "tokenizer_config.json");
  const config = await readJsonObject(configFile);
  const missing = [
    ...(definition === undefined ? ["tokenizer.json"] : []),
    ...(config === undefined ? ["tokenizer_config.json"] : []),
  ];
  if (definition === undefined || config === undefined) {
    throw new DataError(`${modelDir}: expected a tokenizer, found no ${missing.join(" and no ")}`, {
      hint:
        "copy the tokenizer files of the model there (in Python: " +
        "AutoTokenizer.from_pretrained(...).save_pretrained(...)), or give rows that are tokenized already",
    });
  }
  const map = (await readJsonObject(path.join(modelDir, "special_tokens_map.json"))) ?? {};
  const specialTokens: Record<string, string> = {};
  for (const name of SPECIAL_NAMES) {
    // A null in tokenizer_config.json says "none"; only an absent key falls back to the map.
    const text = tokenText(name in config ? config[name] : map[name]);
    if (text !== undefined) specialTokens[name] = text;
  }

  let hub: HubTokenizer;
  try {
    const before = definition.pre_tokenizer as PreTokenizerJson | null | undefined;
    const pre_tokenizer = before ? withRustSpaces(before) : before;
    hub = new HubTokenizer({ ...definition, pre_tokenizer }, config);
  } catch (cause) {
    throw new DataError(`${file}: this tokenizer cannot be loaded: ${(cause as Error).message}`, {
      hint: "models with a tokenizer.json of type BPE, Unigram or WordPiece can be used",
      cause,
    });
  }
  const special = (name: string): SpecialToken | null => {
    const text = specialTokens[name];
    if (text === undefined) return null;
    const id = hub.token_to_id(text);
    if (id === undefined) {
      throw new DataError(
        `${configFile}: ${name} is ${JSON.stringify(text)}, which is not in the vocabulary of tokenizer.json`,
        { hint: "copy both files from the same model" },
      );
    }
    return { text, id };
  };
  const eos = special("eos_token");
  const bos = special("bos_token");
  const encode: Tokenizer["encode"] = (text, { addSpecialTokens }) =>
    hub.encode(text, { add_special_tokens: addSpecialTokens }).ids;
  const opens = (addSpecialTokens: boolean): boolean =>
    bos !== null && encode("a", { addSpecialTokens })[0] === bos.id;

  const added = Array.isArray(definition.added_tokens)
    ? (definition.added_tokens as AddedTokenJson[])
    : [];
  const singleWord = added.filter((token) => token.single_word === true);
  const notices = singleWord.map(
    (token) =>
      `${file}: added token ${JSON.stringify(token.content)} has "single_word": true; text that ` +
      "holds it may be tokenized differently from Python's tokenizers",
  );

  return {
    encode,
    decode: (ids, { skipSpecialTokens }) => {
      const list = Array.from(ids);
      return list.length === 0 ? "" : hub.decode(list, { skip_special_tokens: skipSpecialTokens });
    },
    bos,
    eos,
    addsBos: opens(true) && !opens(false),
    padId: special("pad_token")?.id ?? eos?.id ?? null,
    specialTokens,
    notices,
  };
}
