import assert from "node:assert/strict";
import { test } from "node:test";
import { endAtEos } from "#src/data/render.js";
import { tokenizeCorrected } from "#src/data/tokenize-corrected.js";
import { BOS, characters, codes, EOS, MERGED, split } from "./characters.js";
import { dataError } from "./support.js";

const END = { maxLength: 2048, truncationMode: "keep_end" } as const;
const letters = (count: number, from = "a"): string => from.repeat(count);

function pairOf(
  text: { prompt: string; chosen: string; rejected: string; opening?: number },
  limits: Parameters<typeof tokenizeCorrected>[2] = END,
  tokenizer = characters(),
) {
  const { chosen, rejected, truncated } = tokenizeCorrected(tokenizer, text, limits, "row");
  return { chosen: split(chosen), rejected: split(rejected), truncated };
}

test("corrected: one BOS in front, one EOS at the end, whatever the texts bring", () => {
  const plain = pairOf({ prompt: "hi", chosen: "yes", rejected: "no" });
  assert.deepEqual(plain.chosen, {
    prompt: [BOS, ...codes("hi")],
    response: [...codes("yes"), EOS],
  });
  const brought = pairOf({ prompt: "<s>hi", chosen: "yes</s>", rejected: "no</s></s>" });
  assert.deepEqual(brought.chosen, plain.chosen);
  assert.deepEqual(brought.rejected.response, [...codes("no"), EOS]);
  // An EOS inside stays: it is part of what is said.
  const inside = pairOf({ prompt: "hi", chosen: "a</s>b", rejected: "" });
  assert.deepEqual(inside.chosen.response, [...codes("a"), EOS, ...codes("b"), EOS]);
  assert.deepEqual(inside.rejected.response, [EOS]);
  // A BOS that opens a response without a prompt is the prompt.
  const bare = pairOf({ prompt: "", chosen: "<s>a", rejected: "b" });
  assert.deepEqual(bare.chosen, { prompt: [BOS], response: [...codes("a"), EOS] });
  assert.deepEqual(bare.rejected, { prompt: [BOS], response: [...codes("b"), EOS] });
});

test("corrected: white space behind the template's EOS goes, other text stays", () => {
  assert.equal(endAtEos("Yo</s>\n", "</s>"), "Yo</s>");
  assert.equal(endAtEos("Yo</s> \n\n", "</s>"), "Yo</s>");
  assert.equal(endAtEos("Yo\n", "</s>"), "Yo\n");
  assert.equal(endAtEos("Yo</s>x\n", "</s>"), "Yo</s>x\n");
  assert.equal(endAtEos("Yo\n", undefined), "Yo\n");
});

test("corrected: a tokenizer that puts no BOS in front gets none, with or without a bos_token", () => {
  for (const tokenizer of [characters({ bos: false }), characters({ addsBos: false })]) {
    const pair = pairOf({ prompt: "hi", chosen: "a", rejected: "b" }, END, tokenizer);
    assert.deepEqual(pair.chosen, { prompt: codes("hi"), response: [...codes("a"), EOS] });
  }
});

test("corrected: a token that holds the border belongs to the response, however long the merge", () => {
  const tokenizer = characters({ merges: ["bcd"] });
  const pair = pairOf({ prompt: "abc", chosen: "de", rejected: "xe" }, END, tokenizer);
  assert.deepEqual(pair.chosen, {
    prompt: [BOS, ...codes("a")],
    response: [MERGED, ...codes("e"), EOS],
  });
  assert.deepEqual(pair.rejected.prompt, [BOS, ...codes("abc")]);
});

test("corrected: (i) a long response cuts the prompt, and no response", () => {
  const text = { prompt: letters(99), chosen: letters(1999, "b"), rejected: "c" };
  const { chosen, rejected, truncated } = pairOf(text);
  // 100 prompt ids with BOS, 2000 with EOS: 52 prompt ids go, on both sides.
  assert.deepEqual(truncated, ["prompt"]);
  assert.deepEqual([chosen.prompt.length, chosen.response.length], [48, 2000]);
  assert.deepEqual([rejected.prompt.length, rejected.response.length], [48, 2]);
  assert.equal(chosen.response.at(-1), EOS);
  assert.equal(chosen.prompt[0], BOS);
});

test("corrected: (ii) a cut prompt keeps BOS, its end with keep_end and its beginning with keep_start", () => {
  const text = { prompt: "abcdefgh", chosen: "xyz", rejected: "x" };
  const end = pairOf(text, { maxLength: 8, truncationMode: "keep_end" });
  assert.deepEqual(end.chosen, {
    prompt: [BOS, ...codes("fgh")],
    response: [...codes("xyz"), EOS],
  });
  const start = pairOf(text, { maxLength: 8, truncationMode: "keep_start" });
  assert.deepEqual(start.chosen.prompt, [BOS, ...codes("abc")]);
  const bare = characters({ bos: false });
  const without = pairOf(text, { maxLength: 8, truncationMode: "keep_end" }, bare);
  assert.deepEqual(without.chosen.prompt, codes("efgh"));
});

test("corrected: keep_start keeps the generation prompt, too", () => {
  const text = { prompt: "abcdef|A:", chosen: "xyz", rejected: "x", opening: 3 };
  const start = (maxLength: number) => pairOf(text, { maxLength, truncationMode: "keep_start" });
  assert.deepEqual(start(10).chosen.prompt, [BOS, ...codes("ab|A:")]);
  assert.deepEqual(start(8).chosen.prompt, [BOS, ...codes("|A:")]);
  // Where nothing else is left its end stays: what is nearest to the response.
  assert.deepEqual(start(7).chosen.prompt, [BOS, ...codes("A:")]);
});

test("corrected: (iii) only a response that does not fit beside one prompt token is cut, and loses its EOS", () => {
  const text = { prompt: "abc", chosen: letters(7, "x"), rejected: "yy" };
  const limits = (maxLength: number) => ({ maxLength, truncationMode: "keep_end" }) as const;
  // 8 ids with EOS and BOS before them fit into 9 exactly.
  const fits = pairOf(text, limits(9));
  assert.deepEqual(fits.truncated, ["prompt"]);
  assert.deepEqual(fits.chosen, { prompt: [BOS], response: [...codes("xxxxxxx"), EOS] });
  const cut = pairOf(text, limits(8));
  assert.deepEqual(cut.truncated, ["prompt", "chosen"]);
  assert.deepEqual(cut.chosen, { prompt: [BOS], response: codes("xxxxxxx") });
  // (iv) The shorter response stays whole.
  assert.deepEqual(cut.rejected, { prompt: [BOS], response: [...codes("yy"), EOS] });
  const both = pairOf({ ...text, rejected: letters(9, "y") }, limits(4));
  assert.deepEqual(both.truncated, ["prompt", "chosen", "rejected"]);
  assert.deepEqual(both.rejected, { prompt: [BOS], response: codes("yyy") });
  // Without BOS one token of the prompt stays: the first response token needs one before it to be scored.
  const bare = pairOf(text, limits(8), characters({ bos: false }));
  assert.deepEqual(bare.chosen, { prompt: codes("c"), response: codes("xxxxxxx") });
});

test("corrected: nothing is cut at exactly max_length, one more token cuts one", () => {
  const text = { prompt: "abcd", chosen: "xyz", rejected: "x" };
  const at = (maxLength: number) => pairOf(text, { maxLength, truncationMode: "keep_end" });
  assert.deepEqual(at(9).truncated, []);
  assert.deepEqual(at(8).truncated, ["prompt"]);
  assert.deepEqual(at(8).rejected.prompt, [BOS, ...codes("bcd")]);
});

test("corrected: (v) max_length alone decides, and some response is always left to score", () => {
  for (const maxLength of [2, 3, 5]) {
    const { chosen } = pairOf(
      { prompt: "abc", chosen: "xyz", rejected: "x" },
      { maxLength, truncationMode: "keep_end" },
    );
    assert.equal(chosen.prompt.length + chosen.response.length, Math.min(maxLength, 8));
    assert.ok(chosen.response.length > 0);
  }
});

test("corrected: (vi) both prompts lose the same tokens, so that they stay one prompt", () => {
  const tokenizer = characters({ merges: ["dx"] });
  const text = { prompt: "abcd", chosen: "xyz", rejected: "yyyy" };
  const { chosen, rejected } = pairOf(
    text,
    { maxLength: 8, truncationMode: "keep_end" },
    tokenizer,
  );
  // [BOS a b c] + [dx y z EOS] and [BOS a b c d] + [y y y y EOS]: 5 + 5 - 8 = 2 go from both.
  assert.deepEqual(chosen, {
    prompt: [BOS, ...codes("c")],
    response: [MERGED, ...codes("yz"), EOS],
  });
  assert.deepEqual(rejected, { prompt: [BOS, ...codes("cd")], response: [...codes("yyyy"), EOS] });
});

test("corrected: a tokenizer without EOS is refused", () => {
  assert.throws(
    () => pairOf({ prompt: "a", chosen: "b", rejected: "c" }, END, characters({ eos: false })),
    dataError(/^row: expected a tokenizer with an eos_token, found none$/, /tokenizer_config/),
  );
});
