/** What the quickstart prints at its end: held-out numbers before and after training. */
import { check } from "./tasks.mjs";

/** @typedef {{ before: number, after: number }} BeforeAfter shares, 0 to 1 */
/** @typedef {{ prompt: string, before: string, after: string }} Example */

/**
 * Preference accuracy of the first and of the last evaluation of a run.
 * @param {readonly Record<string, unknown>[]} metrics rows of metrics.jsonl
 * @returns {BeforeAfter}
 */
export function accuracies(metrics) {
  const values = metrics
    .map((row) => row["eval_rewards/accuracies"])
    .filter((value) => typeof value === "number");
  if (values.length < 2) {
    throw new Error(
      `metrics.jsonl: expected eval_rewards/accuracies before and after training, found ` +
        `${values.length} evaluation(s); the recipe needs eval_on_start: true and do_eval: true`,
    );
  }
  return { before: values[0], after: values[values.length - 1] };
}

/**
 * Share of right answers before and after, and a few prompts whose answer became right.
 * @param {readonly { prompt: string, answer: string }[]} tasks
 * @param {readonly string[]} before one reply per task
 * @param {readonly string[]} after
 * @returns {BeforeAfter & { examples: Example[] }}
 */
export function compare(tasks, before, after) {
  for (const replies of [before, after]) {
    if (replies.length !== tasks.length) {
      throw new Error(
        `generate: expected ${tasks.length} replies, one a prompt, received ${replies.length}`,
      );
    }
  }
  const rows = tasks.map((task, i) => ({ task, before: before[i], after: after[i] }));
  const right = (/** @type {"before" | "after"} */ when) =>
    rows.filter((row) => check(row.task, row[when])).length / rows.length;
  const examples = rows
    .filter((row) => !check(row.task, row.before) && check(row.task, row.after))
    .map((row) => ({ prompt: row.task.prompt, before: row.before, after: row.after }));
  const stride = Math.max(1, Math.floor(examples.length / 4)); // spread over the kinds of task
  return {
    before: right("before"),
    after: right("after"),
    examples: examples.filter((_, i) => i % stride === 0).slice(0, 4),
  };
}

/**
 * @param {number} prompts
 * @param {BeforeAfter} accuracy
 * @param {BeforeAfter & { examples: readonly Example[] }} right
 * @returns {string}
 */
export function table(prompts, accuracy, right) {
  const line = (/** @type {string} */ name, /** @type {BeforeAfter} */ { before, after }) => {
    const gain = 100 * (after - before);
    const points = `${gain < 0 ? "-" : "+"}${Math.abs(gain).toFixed(1)} points`;
    return `${name.padEnd(26)}${percent(before)}${percent(after)}   ${points}`;
  };
  return [
    `Held-out prompts: ${prompts}`,
    `${"".padEnd(26)}${"before".padStart(9)}${"after".padStart(9)}`,
    line("preference accuracy", accuracy),
    line("greedy answers right", right),
    ...(right.examples.length === 0 ? [] : ["", "Answers that became right:"]),
    ...right.examples.map(
      ({ prompt, before, after }) => `  ${prompt}  ${quote(before)} -> ${quote(after)}`,
    ),
  ].join("\n");
}

/** @param {number} share */
function percent(share) {
  return `${(100 * share).toFixed(1)} %`.padStart(9);
}

/** @param {string} reply */
function quote(reply) {
  return JSON.stringify(reply.trim());
}
