import assert from "node:assert/strict";
import { test } from "node:test";
import { script } from "./scripts.js";

const { accuracies, compare, table } = await script("report.mjs");

const tasks = [
  { prompt: "What is 2 + 2?", answer: "4" },
  { prompt: "Sort: b, a.", answer: "a, b" },
  { prompt: "What is 5 - 2?", answer: "3" },
];

test("report: counts right answers before and after, and shows some that became right", () => {
  const result = compare(tasks, ["It is 5.", "a, b", "2"], ["It is 4.", "a, b", "4"]);
  assert.deepEqual(result, {
    before: 1 / 3,
    after: 2 / 3,
    examples: [{ prompt: "What is 2 + 2?", before: "It is 5.", after: "It is 4." }],
  });
});

test("report: says when replies are missing", () => {
  assert.throws(() => compare(tasks, ["4"], ["4", "a, b", "3"]), {
    message: "generate: expected 3 replies, one a prompt, received 1",
  });
});

test("report: preference accuracy is that of the first and the last evaluation", () => {
  const metrics = [
    { step: 0, "eval_rewards/accuracies": 0.5 },
    { step: 1, loss: -0.1, "rewards/accuracies": 0.9 },
    { step: 50, "eval_rewards/accuracies": 0.7 },
    { step: 99, "eval_rewards/accuracies": 0.8 },
  ];
  assert.deepEqual(accuracies(metrics), { before: 0.5, after: 0.8 });
});

test("report: says when a run was evaluated only once", () => {
  assert.throws(() => accuracies([{ step: 9, "eval_rewards/accuracies": 0.5 }]), {
    message:
      "metrics.jsonl: expected eval_rewards/accuracies before and after training, found 1 " +
      "evaluation(s); the recipe needs eval_on_start: true and do_eval: true",
  });
});

test("report: the table gives prompts, both numbers, their gains and the examples", () => {
  const result = compare(tasks, ["It is 5.", "a, b", "2"], ["It is 4.", "a, b", "4"]);
  assert.equal(
    table(3, { before: 0.9, after: 0.805 }, result),
    [
      "Held-out prompts: 3",
      "                             before    after",
      "preference accuracy          90.0 %   80.5 %   -9.5 points",
      "greedy answers right         33.3 %   66.7 %   +33.3 points",
      "",
      "Answers that became right:",
      '  What is 2 + 2?  "It is 5." -> "It is 4."',
    ].join("\n"),
  );
});
