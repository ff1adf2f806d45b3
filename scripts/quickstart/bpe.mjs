/**
 * A byte-level BPE trainer [Sennrich, Haddow & Birch 2016; bytes as in Radford et al. 2019]: words
 * are cut by a regular expression, written as bytes, and the most frequent neighbours are merged
 * until the vocabulary is full.
 */

/** Cuts text into words (a leading space belongs to the word), single digits and punctuation. */
export const splitPattern = " ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/**
 * The printable character that stands for each byte in tokenizer.json: itself where it is printable
 * and not a space, else the next character from U+0100 on. @type {readonly string[]}
 */
export const byteCharacters = (() => {
  let next = 0x100;
  const printable = (/** @type {number} */ b) =>
    (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
})();

/**
 * @param {Iterable<string>} texts
 * @param {number} vocabSize at least 256; fewer tokens result if the texts offer no more merges
 * @returns {{ vocab: string[], merges: [string, string][] }} tokens in order of id, merges in order of rank
 */
export function trainBpe(texts, vocabSize) {
  const words = countWords(texts);
  const vocab = [...byteCharacters].sort();
  /** @type {[string, string][]} */
  const merges = [];
  while (vocab.length < vocabSize) {
    const best = mostFrequentPair(words);
    if (best === undefined) break;
    vocab.push(best[0] + best[1]);
    merges.push(best);
    for (const word of words) mergePair(word.pieces, best);
  }
  return { vocab, merges };
}

/** Distinct words with their counts; sorted, so that the result does not depend on the text's order. @param {Iterable<string>} texts */
function countWords(texts) {
  const pattern = new RegExp(splitPattern, "gu");
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const text of texts) {
    for (const [word] of text.matchAll(pattern)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts].sort().map(([word, count]) => {
    const bytes = new TextEncoder().encode(word);
    return { pieces: Array.from(bytes, (byte) => byteCharacters[byte]), count };
  });
}

/**
 * The pair with the highest count; among equals the first in code-unit order.
 * @param {readonly { pieces: string[], count: number }[]} words
 * @returns {[string, string] | undefined} undefined when no pair occurs twice
 */
function mostFrequentPair(words) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { pieces, count } of words) {
    for (let i = 1; i < pieces.length; i++) {
      const pair = `${pieces[i - 1]} ${pieces[i]}`; // no piece contains a space
      counts.set(pair, (counts.get(pair) ?? 0) + count);
    }
  }
  let best = "";
  let bestCount = 1;
  for (const [pair, count] of counts) {
    if (count > bestCount || (count === bestCount && count > 1 && pair < best)) {
      [best, bestCount] = [pair, count];
    }
  }
  if (best === "") return undefined;
  const [left, right] = best.split(" ");
  return [left, right];
}

/** Joins every occurrence of the pair, left to right, in place. @param {string[]} pieces @param {[string, string]} pair */
function mergePair(pieces, [left, right]) {
  for (let i = 0; i + 1 < pieces.length; i++) {
    if (pieces[i] === left && pieces[i + 1] === right) pieces.splice(i, 2, left + right);
  }
}
