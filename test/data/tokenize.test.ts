import assert from "node:assert/strict";
import { test } from "node:test";
import { hasScoredToken, type Limits, tokenizePair, tokenizeText } from "#src/data/tokenize.js";
import type { Tokenizer } from "#src/data/tokenizer.js";
import { BOS, characters, codes, EOS, MERGED, split } from "./characters.js";
import { dataError } from "./support.js";

const wide: Limits = { maxLength: 2048, maxPromptLength: 1800, truncationMode: "keep_end" };

test("tokenize: BOS opens the prompt, EOS ends the response, and the response is scored", () => {
  const pair = tokenizePair(
    characters(),
    { prompt: "hi", chosen: "yes", rejected: "no" },
    wide,
    "row",
  );
  assert.deepEqual(Array.from(pair.chosen.ids), [BOS, ...codes("hi"), ...codes("yes"), EOS]);
  assert.deepEqual(Array.from(pair.chosen.labels), [-100, -100, -100, ...codes("yes"), EOS]);
  assert.deepEqual(split(pair.rejected), {
    prompt: [BOS, ...codes("hi")],
    response: [...codes("no"), EOS],
  });
  assert.deepEqual(pair.truncated, []);
});

test("tokenize: BOS and EOS that the text brings are not doubled, an EOS before a newline is", () => {
  const text = { prompt: "<s>hi", chosen: "yes</s>", rejected: "no</s>\n" };
  const pair = tokenizePair(characters(), text, wide, "row");
  assert.deepEqual(Array.from(pair.chosen.ids), [BOS, ...codes("hi"), ...codes("yes"), EOS]);
  assert.deepEqual(split(pair.rejected).response, [...codes("no"), EOS, 10, EOS]);
});

test("tokenize: a tokenizer without BOS skips every BOS rule", () => {
  const pair = tokenizePair(
    characters({ bos: false }),
    { prompt: "", chosen: "a", rejected: "b" },
    wide,
    "row",
  );
  assert.deepEqual(Array.from(pair.chosen.ids), [...codes("a"), EOS]);
  assert.deepEqual(Array.from(pair.chosen.labels), [...codes("a"), EOS]);
});

test("tokenize: an empty response keeps its EOS, which is scored", () => {
  const pair = tokenizePair(characters(), { prompt: "hi", chosen: "", rejected: "x" }, wide, "row");
  assert.deepEqual(split(pair.chosen).response, [EOS]);
  assert.ok(hasScoredToken(pair.chosen));
});

test("tokenize: (vi) a merge across the border moves it back by one token, on its side only", () => {
  const tokenizer = characters({ merges: ["ab"] });
  const pair = tokenizePair(tokenizer, { prompt: "xa", chosen: "bc", rejected: "c" }, wide, "row");
  assert.deepEqual(split(pair.chosen), {
    prompt: [BOS, ...codes("x")],
    response: [MERGED, ...codes("c"), EOS],
  });
  assert.deepEqual(split(pair.rejected), {
    prompt: [BOS, ...codes("xa")],
    response: [...codes("c"), EOS],
  });
});

test("tokenize: the back-off is one token even where the merge took two", () => {
  // "x", "a", "b" | "c" becomes "x", "abc", "d": the boundary falls after the merged token.
  const tokenizer = characters({ merges: ["abc"] });
  const pair = tokenizePair(
    tokenizer,
    { prompt: "xab", chosen: "cd", rejected: "cde" },
    wide,
    "row",
  );
  assert.deepEqual(split(pair.chosen), {
    prompt: [BOS, ...codes("x"), MERGED],
    response: [...codes("d"), EOS],
  });
});

test("tokenize: a prompt with more tokens than prompt and response is refused by row and side", () => {
  const tokenizer = characters({ merges: ["abcd"] });
  assert.throws(
    () =>
      tokenizePair(tokenizer, { prompt: "abc", chosen: "x", rejected: "d" }, wide, "rows.jsonl:7"),
    dataError(
      /^rows\.jsonl:7: rejected: the prompt alone has 3 tokens, .* only 1$/,
      /end the prompt where a token ends/,
    ),
  );
});

test("tokenize: prompts that differ in more than one token are refused by row", () => {
  // A tokenizer that reads the whole text differently when it ends in "d".
  const tokenizer = characters();
  const fickle: Tokenizer = {
    ...tokenizer,
    encode: (input, options) =>
      input.endsWith("d") ? [9, 8, 7, 6, 5, 4, 3] : tokenizer.encode(input, options),
  };
  assert.throws(
    () =>
      tokenizePair(fickle, { prompt: "abcxyz", chosen: "d", rejected: "e" }, wide, "rows.jsonl:3"),
    dataError(
      /^rows\.jsonl:3: tokenized with chosen and with rejected, the prompt differs in 5 tokens and by 1 in/,
      /newline/,
    ),
  );
});

test("tokenize: a tokenizer without EOS is refused", () => {
  assert.throws(
    () =>
      tokenizePair(
        characters({ eos: false }),
        { prompt: "a", chosen: "b", rejected: "c" },
        wide,
        "r:1",
      ),
    dataError(
      /^r:1: expected a tokenizer with an eos_token, found none$/,
      /tokenizer_config\.json/,
    ),
  );
});

/** A pair with prompt and responses of the given lengths, BOS and EOS included. */
function sized(prompt: number, chosen: number, rejected: number, limits: Limits) {
  const letters = (n: number): string =>
    Array.from({ length: n }, (_, i) => String.fromCharCode(5000 + i)).join("");
  const text = {
    prompt: letters(prompt - 1),
    chosen: letters(chosen - 1),
    rejected: letters(rejected - 1),
  };
  const pair = tokenizePair(characters(), text, limits, "row");
  return { ...pair, chosen: split(pair.chosen), rejected: split(pair.rejected) };
}

test("truncation: (i) a long response cuts both responses to max_length - max_prompt_length", () => {
  const { chosen, rejected, truncated } = sized(100, 2000, 1000, wide);
  assert.equal(chosen.prompt.length, 100);
  assert.equal(rejected.prompt.length, 100);
  assert.equal(chosen.response.length, 248);
  assert.equal(rejected.response.length, 248); // (iv) the shorter one too, as it exceeds the cap
  assert.deepEqual(truncated, ["chosen", "rejected"]);
});

test("truncation: a response that is exactly as long as the cap loses nothing", () => {
  const { rejected, truncated } = sized(100, 2000, 248, wide);
  assert.equal(rejected.response.at(-1), EOS);
  assert.deepEqual(truncated, ["chosen"]);
});

test("truncation: (ii) keep_end keeps the last prompt tokens and loses BOS", () => {
  const { chosen, rejected, truncated } = sized(1900, 200, 100, wide);
  assert.equal(chosen.prompt.length, 1800);
  assert.notEqual(chosen.prompt[0], BOS);
  assert.equal(chosen.prompt.at(-1), 5000 + 1898);
  assert.deepEqual(rejected.prompt, chosen.prompt);
  assert.equal(chosen.response.length, 200);
  assert.equal(chosen.response.at(-1), EOS);
  assert.deepEqual(truncated, ["prompt"]);
});

test("truncation: keep_start keeps BOS and the first prompt tokens", () => {
  const { chosen } = sized(1900, 200, 100, { ...wide, truncationMode: "keep_start" });
  assert.equal(chosen.prompt.length, 1800);
  assert.equal(chosen.prompt[0], BOS);
  assert.equal(chosen.prompt.at(-1), 5000 + 1798);
});

test("truncation: (iii) a cut response loses its EOS, a short one beside it keeps it", () => {
  const { chosen, rejected, truncated } = sized(1900, 300, 200, wide);
  assert.equal(chosen.response.length, 248);
  assert.notEqual(chosen.response.at(-1), EOS);
  assert.equal(rejected.response.length, 200);
  assert.equal(rejected.response.at(-1), EOS);
  assert.deepEqual(truncated, ["prompt", "chosen"]);
});

test("truncation: nothing is cut at exactly max_length, one more token cuts", () => {
  assert.deepEqual(sized(1848, 200, 200, wide).truncated, []);
  assert.deepEqual(sized(1849, 200, 199, wide).truncated, ["prompt"]);
});

test("truncation: a pair that fits after the prompt was cut keeps its responses whole", () => {
  const { chosen } = sized(1849, 200, 199, wide);
  assert.equal(chosen.prompt.length, 1800);
  assert.equal(chosen.response.length, 200);
});

test("truncation: (v) max_length = max_prompt_length leaves no token to score", () => {
  const limits: Limits = { maxLength: 16, maxPromptLength: 16, truncationMode: "keep_end" };
  const text = { prompt: "abcdefgh", chosen: "ijklmnopqrst", rejected: "u" };
  const pair = tokenizePair(characters(), text, limits, "row");
  assert.equal(hasScoredToken(pair.chosen), false);
  assert.equal(hasScoredToken(pair.rejected), false);
  assert.deepEqual(pair.truncated, ["chosen", "rejected"]);
});

test("truncation: max_prompt_length above max_length is refused for a pair that is too long only", () => {
  const limits: Limits = { maxLength: 20, maxPromptLength: 128, truncationMode: "keep_end" };
  assert.deepEqual(sized(10, 10, 10, limits).truncated, []);
  assert.throws(
    () => sized(10, 11, 10, limits),
    dataError(/^row: 10 \+ 11 tokens do not fit max_length 20/, /below max_length/),
  );
});

test("truncation: a side whose prompt is one token longer is judged on its own length", () => {
  const limits: Limits = { maxLength: 12, maxPromptLength: 8, truncationMode: "keep_end" };
  const fits = tokenizePair(
    characters({ merges: ["ab"] }),
    { prompt: "xxxxxxxxa", chosen: "b", rejected: "cd" },
    limits,
    "row",
  );
  // longer = 3: chosen 9 + 3 = 12 fits, rejected 10 + 3 = 13 does not.
  assert.equal(split(fits.chosen).prompt.length, 9);
  assert.equal(split(fits.rejected).prompt.length, 8);
});

test("tokenize: a label at index 0 alone is nothing to score", () => {
  const only = { ids: Int32Array.of(5, 6), labels: Int32Array.of(5, -100) };
  assert.equal(hasScoredToken(only), false);
  assert.equal(hasScoredToken({ ids: only.ids, labels: Int32Array.of(-100, 6) }), true);
});

test("sft: plain text gets BOS and EOS once, a conversation nothing, both keep the beginning", () => {
  const plain = (text: string, maxLength = 99) =>
    tokenizeText(characters(), text, { conversation: false, maxLength });
  assert.deepEqual(Array.from(plain("ab").sequence.ids), [BOS, ...codes("ab"), EOS]);
  assert.deepEqual(Array.from(plain("ab</s>").sequence.ids), [BOS, ...codes("ab"), EOS]);
  assert.deepEqual(plain("ab").sequence.labels, plain("ab").sequence.ids);
  assert.equal(plain("ab").truncated, false);
  const cut = plain("abcdef", 3);
  assert.deepEqual(Array.from(cut.sequence.ids), [BOS, ...codes("ab")]);
  assert.equal(cut.truncated, true);
  const chat = tokenizeText(characters(), "<s>ab", { conversation: true, maxLength: 99 });
  assert.deepEqual(Array.from(chat.sequence.ids), [BOS, ...codes("ab")]);
});
