import assert from "node:assert/strict";
import { test } from "node:test";
import { script, type Task } from "./scripts.js";

const { Random } = await script("random.mjs");
const { check, drawCorpusReply, drawReplies, drawTask, isHeldOut, kinds, terse } =
  await script("tasks.mjs");

function draw(side: "train" | "test", kind: string, count: number, seed = 11): Task[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => drawTask(random, side, kind));
}

test("random: equal seeds give equal sequences, and other seeds others", () => {
  const sequence = (seed: number): number[] => {
    const random = new Random(seed);
    return Array.from({ length: 5 }, () => random.next());
  };
  assert.deepEqual(sequence(7), sequence(7));
  assert.notDeepEqual(sequence(7), sequence(8));
});

test("random: integers cover their range evenly, normals have mean 0 and variance 1", () => {
  const random = new Random(5);
  const counts = new Array<number>(10).fill(0);
  for (let i = 0; i < 20_000; i++) counts[random.integer(3, 12) - 3]! += 1;
  // Binomial(20000, 0.1): standard deviation 42, so 200 is nearly five of them.
  for (const count of counts) assert.ok(Math.abs(count - 2000) < 200, `counts ${counts.join(" ")}`);

  const normals = Array.from({ length: 20_000 }, () => random.normal());
  const mean = normals.reduce((sum, x) => sum + x, 0) / normals.length;
  const variance = normals.reduce((sum, x) => sum + (x - mean) ** 2, 0) / normals.length;
  assert.ok(Math.abs(mean) < 0.035, `mean ${mean}`); // 5 · 1/sqrt(20000)
  assert.ok(Math.abs(variance - 1) < 0.05, `variance ${variance}`); // 5 · sqrt(2/20000)
});

// The right answer again, worked out from the prompt's own words instead of the generator's values.
const solve: Record<string, (prompt: string) => string> = {
  add: (prompt) => String(numbers(prompt)[0]! + numbers(prompt)[1]!),
  subtract: (prompt) => {
    const [a, b] = numbers(prompt);
    return String(Math.abs(a! - b!)); // "Take 3 from 9" names the smaller one first
  },
  larger: (prompt) => String(Math.max(...numbers(prompt))),
  smallest: (prompt) => String(Math.min(...numbers(prompt))),
  next: (prompt) => {
    const [a, b, c] = numbers(prompt);
    assert.equal(b! - a!, c! - b!);
    return String(c! + c! - b!);
  },
  countWords: (prompt) => String(subject(prompt, /(?:"|words: )([a-z ]+)/).split(" ").length),
  countLetters: (prompt) => String(lastWordAbout(prompt).length),
  firstLetter: (prompt) => lastWordAbout(prompt)[0]!,
  lastLetter: (prompt) => lastWordAbout(prompt).at(-1)!,
  lastWord: (prompt) => lastWordAbout(prompt),
  sort: (prompt) =>
    subject(prompt, /: ([a-z]+, [a-z]+, [a-z]+)\./)
      .split(", ")
      .sort()
      .join(", "),
};

function numbers(prompt: string): number[] {
  return (prompt.match(/\d+/g) ?? []).map(Number);
}

function subject(prompt: string, pattern: RegExp): string {
  const found = pattern.exec(prompt)?.[1];
  assert.ok(found !== undefined, `no subject in: ${prompt}`);
  return found;
}

/** The word that these questions are about stands at their end. */
function lastWordAbout(prompt: string): string {
  return subject(prompt, /([a-z]+)"?[?.]$/);
}

for (const kind of Object.keys(kinds)) {
  test(`tasks: the answer to "${kind}" is right and its two slips are wrong`, () => {
    assert.ok(solve[kind] !== undefined, `add "${kind}" to this test`);
    for (const task of [...draw("train", kind, 300), ...draw("test", kind, 100)]) {
      assert.equal(task.answer, solve[kind](task.prompt), task.prompt);
      assert.equal(new Set([task.answer, task.habit, task.slip]).size, 3, task.prompt);
    }
  });

  test(`check: passes "${kind}" answers in every style and refuses its slips`, () => {
    for (const task of draw("train", kind, 100)) {
      for (const style of [...terse, ...task.sentences]) {
        assert.ok(check(task, style.replace("@", task.answer)), `${task.prompt} ${style}`);
        assert.ok(!check(task, style.replace("@", task.habit)), `${task.prompt} ${style} habit`);
        assert.ok(!check(task, style.replace("@", task.slip)), `${task.prompt} ${style} slip`);
      }
    }
  });
}

test("check: reads the last item, whatever stands before it", () => {
  assert.ok(check({ answer: "12" }, "5 + 7 = 12."));
  assert.ok(!check({ answer: "12" }, "12 - 5 = 7"));
  assert.ok(!check({ answer: "12" }, "112"));
  assert.ok(!check({ answer: "2" }, "-2"));
  assert.ok(check({ answer: "ant, bee, cow" }, "Sorted: Ant,bee, cow!"));
  assert.ok(!check({ answer: "ant, bee, cow" }, "owl, ant, bee, cow"));
  assert.ok(!check({ answer: "bee" }, "ant, bee"));
  assert.ok(!check({ answer: "a" }, ""));
});

test("tasks: no instance and no prompt is on both sides, whatever its wording", () => {
  const sides = { train: new Set<string>(), test: new Set<string>() };
  for (const side of ["train", "test"] as const) {
    for (const kind of Object.keys(kinds)) {
      for (const task of draw(side, kind, 500, side === "train" ? 1 : 2)) {
        assert.equal(isHeldOut(task.key), side === "test");
        sides[side].add(task.key).add(task.prompt);
      }
    }
  }
  assert.deepEqual(
    [...sides.test].filter((item) => sides.train.has(item)),
    [],
  );
});

test("tasks: the order of the operands does not move an instance to the other side", () => {
  const keys = new Set(draw("train", "add", 4000).map((task) => task.key));
  for (const task of draw("test", "add", 1000)) {
    const [a, b] = numbers(task.prompt);
    assert.ok(!keys.has(`add ${a} ${b}`) && !keys.has(`add ${b} ${a}`), task.prompt);
  }
});

test("tasks: chosen replies are right and rejected ones wrong, most pairs in one style", () => {
  const random = new Random(3);
  const count = { alike: 0, chosenTerse: 0, rejectedTerse: 0 };
  for (let i = 0; i < 2000; i++) {
    const task = drawTask(random, "train");
    const { chosen, rejected } = drawReplies(random, task);
    assert.ok(check(task, chosen), `${task.prompt} ${chosen}`);
    assert.ok(!check(task, rejected), `${task.prompt} ${rejected}`);
    const isTerse = (reply: string, bare: string): boolean =>
      terse.some((style) => style.replace("@", bare) === reply);
    const chosenTerse = isTerse(chosen, task.answer);
    const rejectedTerse = isTerse(rejected, task.habit) || isTerse(rejected, task.slip);
    count.alike += Number(chosenTerse === rejectedTerse);
    count.chosenTerse += Number(chosenTerse);
    count.rejectedTerse += Number(rejectedTerse);
  }
  // Of 2000: 0.75, 0.75 · 0.7 + 0.25 · 0.3 = 0.6 and 0.7; five standard deviations are below 112.
  assert.ok(Math.abs(count.alike - 1500) < 112, JSON.stringify(count));
  assert.ok(Math.abs(count.chosenTerse - 1200) < 112, JSON.stringify(count));
  assert.ok(Math.abs(count.rejectedTerse - 1400) < 112, JSON.stringify(count));
});

test("tasks: the corpus is terse and wrong most of the time, its sentences are mostly right", () => {
  const random = new Random(4);
  const count = { terse: 0, terseRight: 0, sentence: 0, sentenceRight: 0 };
  for (let i = 0; i < 10_000; i++) {
    const task = drawTask(random, "train");
    const reply = drawCorpusReply(random, task);
    const answers = [task.answer, task.habit, task.slip];
    const isTerse = terse.some((style) => answers.some((x) => style.replace("@", x) === reply));
    count[isTerse ? "terse" : "sentence"] += 1;
    if (check(task, reply)) count[isTerse ? "terseRight" : "sentenceRight"] += 1;
  }
  // Five standard deviations of a share of some thousands are below 0.03.
  assert.ok(Math.abs(count.terse / 10_000 - 0.6) < 0.03, JSON.stringify(count));
  assert.ok(Math.abs(count.terseRight / count.terse - 0.2) < 0.03, JSON.stringify(count));
  assert.ok(Math.abs(count.sentenceRight / count.sentence - 0.85) < 0.03, JSON.stringify(count));
});
