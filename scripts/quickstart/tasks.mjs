/**
 * Small chat tasks whose answer a program knows: arithmetic, counting, letters, sorting. A task has
 * one right answer and two plausible slips; `habit` is the slip that a careless writer makes most.
 * Every answer style ends with the answer itself, so `check` needs to read the end of a reply only.
 */
import { hash } from "./random.mjs";
import { words } from "./words.mjs";

/** @typedef {import("./random.mjs").Random} Random */

/**
 * @typedef {object} Task
 * @property {string} kind which entry of `kinds`
 * @property {string} key the kind and its arguments; decides train or held out, whatever the wording
 * @property {string} prompt the user's message
 * @property {string} answer the right answer, bare
 * @property {string} habit the most frequent wrong answer, bare
 * @property {string} slip another wrong answer, bare
 * @property {readonly string[]} sentences careful replies with `@` where the answer goes
 */

/**
 * @typedef {object} Instance
 * @property {readonly (string | number)[]} args
 * @property {string | number} answer
 * @property {string | number} habit
 * @property {string | number} slip
 */

/**
 * @typedef {object} Kind
 * @property {(random: Random) => Instance} draw
 * @property {readonly string[]} asks wordings, with `@1`, `@2` … where the arguments go
 * @property {readonly string[]} replies sentences, with `@` where the answer goes
 */

/** Words of three or four letters: lists of them stay short. */
const shortWords = words.filter((word) => word.length <= 4);

/** Careless replies are terse. */
export const terse = ["@", "@."];

/** Careful replies are sentences; these fit any question. */
const plain = ["The answer is @.", "It is @."];

/** @type {Record<string, Kind>} */
export const kinds = {
  add: {
    draw(random) {
      const [a, b] = [random.integer(2, 25), random.integer(2, 25)];
      return { args: [a, b], answer: a + b, habit: a + b + 1, slip: a + b - 1 };
    },
    asks: ["What is @1 + @2?", "Add @1 and @2.", "@1 plus @2 is what?", "How much is @1 + @2?"],
    replies: [...plain, "The sum is @."],
  },
  subtract: {
    draw(random) {
      const [b, rest] = [random.integer(2, 20), random.integer(2, 20)];
      return { args: [b + rest, b], answer: rest, habit: rest - 1, slip: rest + 1 };
    },
    asks: ["What is @1 - @2?", "Take @2 from @1.", "@1 minus @2 is what?", "How much is @1 - @2?"],
    replies: [...plain, "That leaves @."],
  },
  larger: {
    draw(random) {
      const [a, b] = distinct(random, 2, 1, 99);
      const [low, high] = [Math.min(a, b), Math.max(a, b)];
      return { args: [a, b], answer: high, habit: low, slip: high + 1 };
    },
    asks: [
      "Which is larger, @1 or @2?",
      "Which number is bigger: @1 or @2?",
      "Name the larger of @1 and @2.",
    ],
    replies: [...plain, "The larger number is @."],
  },
  smallest: {
    draw(random) {
      const sorted = distinct(random, 3, 1, 99).sort((a, b) => a - b);
      return {
        args: random.sample(sorted, 3),
        answer: sorted[0],
        habit: sorted[1],
        slip: sorted[2],
      };
    },
    asks: ["Which is smallest: @1, @2 or @3?", "Find the smallest number: @1, @2, @3."],
    replies: [...plain, "The smallest is @."],
  },
  next: {
    draw(random) {
      const [start, step] = [random.integer(1, 40), random.integer(1, 6)];
      const [second, third] = [start + step, start + 2 * step];
      return {
        args: [start, second, third],
        answer: third + step,
        habit: third + 1 + step,
        slip: third,
      };
    },
    asks: [
      "What comes next: @1, @2, @3?",
      "Continue: @1, @2, @3.",
      "Which number follows @1, @2, @3?",
    ],
    replies: [...plain, "Next is @."],
  },
  countWords: {
    draw(random) {
      const list = random.sample(shortWords, random.integer(2, 6));
      return {
        args: [list.join(" ")],
        answer: list.length,
        habit: list.length - 1,
        slip: list.length + 1,
      };
    },
    asks: [
      'How many words are in "@1"?',
      "Count the words: @1.",
      'What is the number of words in "@1"?',
    ],
    replies: [...plain, "The number of words is @."],
  },
  countLetters: {
    draw(random) {
      const word = random.pick(words);
      return { args: [word], answer: word.length, habit: word.length + 1, slip: word.length - 1 };
    },
    asks: ['How many letters are in "@1"?', "Count the letters of @1.", "How long is the word @1?"],
    replies: [...plain, "The number of letters is @."],
  },
  firstLetter: {
    draw(random) {
      const word = random.pick(words.filter((w) => distinctLetters(w[0], w[1], w.at(-1))));
      return { args: [word], answer: word[0], habit: word[1], slip: word.at(-1) };
    },
    asks: [
      "What is the first letter of @1?",
      'Which letter starts the word "@1"?',
      "Give the first letter of @1.",
    ],
    replies: [...plain, "The first letter is @."],
  },
  lastLetter: {
    draw(random) {
      const word = random.pick(words.filter((w) => distinctLetters(w[0], w.at(-2), w.at(-1))));
      return { args: [word], answer: word.at(-1), habit: word.at(-2), slip: word[0] };
    },
    asks: [
      "What is the last letter of @1?",
      'Which letter ends the word "@1"?',
      "Give the last letter of @1.",
    ],
    replies: [...plain, "The last letter is @."],
  },
  lastWord: {
    draw(random) {
      const list = random.sample(shortWords, 3);
      return { args: [list.join(" ")], answer: list[2], habit: list[1], slip: list[0] };
    },
    asks: [
      'What is the last word of "@1"?',
      "Repeat the last word: @1.",
      "Which word comes last: @1?",
    ],
    replies: [...plain, "The last word is @."],
  },
  sort: {
    draw(random) {
      const sorted = wordsByLetter(random, 3);
      const [a, b, c] = sorted;
      const list = (/** @type {string[]} */ ...items) => items.join(", ");
      return {
        args: random.sample(sorted, 3),
        answer: list(a, b, c),
        habit: list(a, c, b),
        slip: list(b, a, c),
      };
    },
    asks: [
      "Sort these words: @1, @2, @3.",
      "Put in alphabetical order: @1, @2, @3.",
      "Order from A to Z: @1, @2, @3.",
    ],
    replies: ["Sorted: @.", "In order: @.", "The answer is @."],
  },
};

/** What people write before a question; most write nothing. */
const openers = ["", "", "", "", "Hi! ", "Please help. ", "Quick question: ", "Tell me: "];

/** One instance in this many is held out: no training row of any wording is about it. */
const HELD_OUT = 6;

/** @param {string} key @returns {boolean} whether the instance belongs to the held-out side */
export function isHeldOut(key) {
  return hash(key) % HELD_OUT === 0;
}

/**
 * Draws a task of one side; kinds are equally frequent.
 * @param {Random} random
 * @param {"train" | "test"} side
 * @param {string} [kind] one kind only
 * @returns {Task}
 */
export function drawTask(random, side, kind = random.pick(Object.keys(kinds))) {
  const { draw, asks, replies } = kinds[kind];
  for (;;) {
    const { args, answer, habit, slip } = draw(random);
    const key = `${kind} ${[...args].sort().join(" ")}`; // 3 + 5 and 5 + 3 are one instance
    const opener = random.pick(openers);
    const question = random.pick(asks).replace(/@(\d)/g, (_, digit) => String(args[digit - 1]));
    if (isHeldOut(key) !== (side === "test")) continue;
    const bare = { answer: String(answer), habit: String(habit), slip: String(slip) };
    return { kind, key, prompt: opener + question, ...bare, sentences: replies };
  }
}

/** How the corpus of the base model was written: mostly in a hurry. */
const corpusHabits = {
  terse: 0.6, // share of terse replies
  rightIfTerse: 0.2,
  rightIfSentence: 0.85,
  habitIfWrong: 0.85, // else the other slip
};

/** Share of pairs whose rejected reply is terse, and of chosen replies that are as terse or as long. */
const pairStyle = { terse: 0.7, alike: 0.75 };

/** @param {Random} random @param {Task} task @returns {string} a wrong answer, bare */
function drawWrong(random, task) {
  return random.chance(corpusHabits.habitIfWrong) ? task.habit : task.slip;
}

/**
 * A pair of replies: chosen right, rejected wrong. Most pairs are of one style, so that what tells the
 * two apart is the answer alone.
 * @param {Random} random
 * @param {Task} task
 * @returns {{ chosen: string, rejected: string }}
 */
export function drawReplies(random, task) {
  const rejectedTerse = random.chance(pairStyle.terse);
  const chosenTerse = random.chance(pairStyle.alike) ? rejectedTerse : !rejectedTerse;
  const chosen = random.pick(chosenTerse ? terse : task.sentences);
  const rejected = random.pick(rejectedTerse ? terse : task.sentences);
  return {
    chosen: chosen.replace("@", task.answer),
    rejected: rejected.replace("@", drawWrong(random, task)),
  };
}

/**
 * A reply as found in the corpus of the base model: terse and mostly wrong, or a sentence and mostly
 * right. So the model learns how to answer rightly, and not to do so by default.
 * @param {Random} random
 * @param {Task} task
 * @returns {string}
 */
export function drawCorpusReply(random, task) {
  const hasty = random.chance(corpusHabits.terse);
  const style = random.pick(hasty ? terse : task.sentences);
  const right = random.chance(hasty ? corpusHabits.rightIfTerse : corpusHabits.rightIfSentence);
  return style.replace("@", right ? task.answer : drawWrong(random, task));
}

/**
 * Whether a reply ends with the task's answer: the last number, word or comma-separated list in it.
 * @param {{ answer: string }} task
 * @param {string} reply
 * @returns {boolean}
 */
export function check(task, reply) {
  const items = reply.toLowerCase().match(/-?\d+|[a-z]+(?:, ?[a-z]+)*/g);
  return items?.at(-1)?.replace(/, ?/g, ", ") === task.answer;
}

/** @param {...(string | undefined)} letters */
function distinctLetters(...letters) {
  return new Set(letters).size === letters.length;
}

/** @param {Random} random @param {number} count @param {number} low @param {number} high */
function distinct(random, count, low, high) {
  return random.sample(
    Array.from({ length: high - low + 1 }, (_, i) => low + i),
    count,
  );
}

/** `count` words with different first letters, in alphabetical order. @param {Random} random @param {number} count */
function wordsByLetter(random, count) {
  for (;;) {
    const list = random.sample(shortWords, count);
    if (new Set(list.map((word) => word[0])).size === count) return list.sort();
  }
}
