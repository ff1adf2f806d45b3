import assert from "node:assert/strict";
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { formatSeconds } from "#src/report/console.js";
import {
  combineReporters,
  createConsoleReporter,
  createJsonlReporter,
  createTrainerState,
  type Reporter,
} from "#src/report/index.js";
import { evaluation, record, run } from "./records.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-report-"));
after(() => rmSync(dir, { recursive: true }));
const fresh = () => mkdtempSync(path.join(dir, "run-"));

const steps = (reporter: Reporter, from: number, to: number) => {
  for (let step = from; step <= to; step++) {
    reporter.step(record(step));
    if (step % 5 === 0) reporter.eval(evaluation(step));
  }
};
const lines = (folder: string) =>
  readFileSync(path.join(folder, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, number>);

test("metrics.jsonl holds every field of every step and evaluation, in order", () => {
  const folder = path.join(fresh(), "made", "on", "demand");
  const reporter = createJsonlReporter();
  reporter.start(run(folder));
  steps(reporter, 1, 5);
  reporter.end({ step: 5, interrupted: false, seconds: 1 });
  assert.deepEqual(lines(folder), [1, 2, 3, 4, 5].map(record).concat(evaluation(5) as never));
});

test("a resumed run cuts metrics.jsonl back to its checkpoint, torn line included", () => {
  const folder = fresh();
  const first = createJsonlReporter();
  first.start(run(folder));
  steps(first, 1, 8);
  appendFileSync(path.join(folder, "metrics.jsonl"), '{"step":9,"epo'); // killed inside a write
  const second = createJsonlReporter();
  second.start(run(folder, 5));
  assert.deepEqual(
    lines(folder).map(({ step }) => step),
    [1, 2, 3, 4, 5, 5],
  );
  steps(second, 6, 7);
  assert.deepEqual(
    lines(folder).map(({ step }) => step),
    [1, 2, 3, 4, 5, 5, 6, 7],
  );
  assert.deepEqual(readdirSync(folder), ["metrics.jsonl"]);
});

test("a torn line that became part of the file does not hide the lines after it", () => {
  const folder = fresh();
  const file = path.join(folder, "metrics.jsonl");
  writeFileSync(
    file,
    '{"step":1,"loss":1}\n{"step":2,"lo\nnull\n7\n{"step":3,"loss":3}\n{"step":4,"loss":4}\n',
  );
  createJsonlReporter().start(run(folder, 3));
  assert.equal(readFileSync(file, "utf8"), '{"step":1,"loss":1}\n{"step":3,"loss":3}\n');
});

test("a last line without its line end is completed, so that the next record stands alone", () => {
  const folder = fresh();
  writeFileSync(path.join(folder, "metrics.jsonl"), '{"step":1,"loss":1}');
  const reporter = createJsonlReporter();
  reporter.start(run(folder, 1));
  reporter.step(record(2));
  assert.deepEqual(
    lines(folder).map(({ step }) => step),
    [1, 2],
  );
});

test("nothing is rewritten when nothing has to go, and a new run starts a new file", () => {
  const folder = fresh();
  const file = path.join(folder, "metrics.jsonl");
  writeFileSync(file, '{"step":0,"eval_loss":1}\n{"step":1,"loss":1}\n');
  const before = statSync(file).ino;
  createJsonlReporter().start(run(folder, 1));
  assert.equal(statSync(file).ino, before);
  createJsonlReporter().start(run(folder));
  assert.equal(readFileSync(file, "utf8"), "");
});

type State = { log_history: Record<string, number>[] } & Record<string, unknown>;

test("trainer_state.json has transformers' fields and means over logging_steps", () => {
  const state = createTrainerState();
  state.start(run("out"));
  steps(state, 1, 10);
  state.end({ step: 10, interrupted: false, seconds: 5 });
  const saved = JSON.parse(state.toJson()) as State;
  // Exactly the fields of TrainerState in transformers 4.40: its loader refuses any other.
  assert.deepEqual(Object.keys(saved).sort(), [
    "best_metric",
    "best_model_checkpoint",
    "epoch",
    "eval_steps",
    "global_step",
    "is_hyper_param_search",
    "is_local_process_zero",
    "is_world_process_zero",
    "log_history",
    "logging_steps",
    "max_steps",
    "num_input_tokens_seen",
    "num_train_epochs",
    "save_steps",
    "stateful_callbacks",
    "total_flos",
    "train_batch_size",
    "trial_name",
    "trial_params",
  ]);
  assert.equal(saved.global_step, 10);
  assert.equal(saved.max_steps, 10);
  assert.equal(saved.num_train_epochs, 2);
  assert.equal(saved.num_input_tokens_seen, 5500);
  assert.equal(saved.train_batch_size, 2);
  const history = saved.log_history;
  assert.deepEqual(
    history.map(({ step }) => step),
    [4, 5, 8, 10, 10, 10],
  );
  assert.ok(Math.abs(history[0]!.loss! + 0.025) < 1e-12); // mean of 0.01 .. 0.04
  assert.equal(history[0]!["rewards/accuracies"], 0.5);
  assert.equal(history[0]!.grad_norm, 4);
  assert.equal(history[0]!.learning_rate, 4e-6);
  assert.equal(history[1]!.eval_loss, -0.5);
  assert.ok(Math.abs(history[3]!.loss! + 0.095) < 1e-12); // steps 9 and 10
  assert.equal(history.at(-1)!.train_runtime, 5);
});

test("a resumed run ends with the same trainer_state.json, wherever it was interrupted", () => {
  const whole = createTrainerState();
  whole.start(run("out"));
  steps(whole, 1, 10);
  for (const at of [1, 4, 6, 9]) {
    const before = createTrainerState();
    before.start(run("out"));
    steps(before, 1, at);
    const resumed = createTrainerState(before.toJson());
    resumed.start(run("out", at));
    steps(resumed, at + 1, 10);
    assert.equal(resumed.toJson(), whole.toJson(), `after step ${at}`);
  }
});

function capture(options: { live: boolean; color?: boolean; columns?: number }): {
  reporter: Reporter;
  text: () => string;
} {
  let text = "";
  const reporter = createConsoleReporter({
    live: options.live,
    color: options.color ?? false,
    columns: () => options.columns ?? 200,
    write: (piece) => {
      text += piece;
    },
  });
  return { reporter, text: () => text };
}

test("without a terminal there is a plain line of means every logging_steps", () => {
  const { reporter, text } = capture({ live: false });
  reporter.start({ ...run("outputs/a"), runName: "tiny" });
  reporter.notice("a notice");
  steps(reporter, 1, 10);
  reporter.end({ step: 10, interrupted: false, seconds: 65 });
  assert.deepEqual(text().split("\n"), [
    "tiny: 10 steps; output in outputs/a",
    "a notice",
    "step 4/10 · loss -0.0250 · acc 0.50 · margin 0.2500 · 500 tok/s · 8.0 pairs/s · lr 4.00e-6 · grad 4.00 · ETA 3s",
    "eval step 5 · loss -0.5000 · acc 0.7500 · margin 0.2500",
    "step 8/10 · loss -0.0650 · acc 0.50 · margin 0.6500 · 1300 tok/s · 8.0 pairs/s · lr 8.00e-6 · grad 8.00 · ETA 1s",
    "step 10/10 · loss -0.0950 · acc 0.50 · margin 0.9500 · 1900 tok/s · 8.0 pairs/s · lr 1.00e-5 · grad 10.0 · ETA 0s",
    "eval step 10 · loss -0.5000 · acc 0.7500 · margin 0.2500",
    "done after 10 steps in 1m05s",
    "",
  ]);
});

test("on a terminal one line is redrawn, and other lines do not break it", () => {
  const { reporter, text } = capture({ live: true, columns: 50 });
  reporter.start(run("out", 3));
  assert.match(text(), /10 steps, resumed after step 3; output in out\n$/);
  reporter.step(record(4));
  reporter.step(record(5));
  const live = text().split("\r\x1b[K").at(-1)!;
  assert.match(live, /^5\/10 loss -0\.0500 acc 1\.00 margin/);
  assert.equal(live.length, 49); // never wraps
  assert.ok(live.endsWith("…"));
  reporter.notice("careful");
  assert.ok(text().endsWith(`\r\x1b[Kcareful\n${live}`));
  reporter.end({ step: 5, interrupted: true, seconds: 3 });
  assert.ok(text().endsWith("…\nstopped after step 5 in 3s\n"));
});

test("the whole live line of a run of a thousand steps fits into 80 columns", () => {
  const { reporter, text } = capture({ live: true, columns: 80 });
  reporter.start({ ...run("out"), totalSteps: 1200 });
  const values = { loss: -0.1234, "rewards/margins": 1.2345, step_time: 10 };
  const rates = { tokens_per_second: 1_234_567, pairs_per_second: 1234 };
  reporter.step({ ...record(100), ...values, ...rates });
  const live = text().split("\r\x1b[K").at(-1)!;
  assert.match(live, /^100\/1200 loss -0\.1234 .* 1\.2M tok\/s 1234 pairs\/s ETA 3h03m$/);
});

test("colours only where asked for; a loss without pairs shows no pair metrics", () => {
  const plain = {
    step: 1,
    epoch: 1,
    loss: 2.5,
    grad_norm: 1,
    learning_rate: 1,
    num_tokens: 10,
    num_computed_tokens: 10,
    step_time: 1,
    tokens_per_second: 10,
    pairs_per_second: 2,
  };
  const painted = capture({ live: true, color: true });
  painted.reporter.notice("x");
  assert.notEqual(painted.text(), stripVTControlCharacters(painted.text()));
  assert.ok(painted.text().includes("\u001b[33mx\u001b[0m"));
  const { reporter, text } = capture({ live: false });
  reporter.start({ ...run("out"), loggingSteps: 1 });
  reporter.step(plain);
  assert.match(text(), /step 1\/10 · loss 2\.5000 · 10 tok\/s · lr 1\.00 · grad 1\.00 · ETA 9s\n$/);
});

test("durations are short", () => {
  const cases: [number, string][] = [
    [0.4, "0s"],
    [59.6, "1m00s"],
    [185, "3m05s"],
    [7620, "2h07m"],
    [273600, "3d04h"],
  ];
  for (const [seconds, text] of cases) assert.equal(formatSeconds(seconds), text);
});

test("combined reporters all hear everything, in order", () => {
  const heard: string[] = [];
  const listen = (name: string): Reporter => ({
    start: () => heard.push(`${name} start`),
    step: () => heard.push(`${name} step`),
    eval: () => heard.push(`${name} eval`),
    notice: () => heard.push(`${name} notice`),
    end: () => heard.push(`${name} end`),
  });
  const both = combineReporters([listen("a"), listen("b")]);
  both.start(run("out"));
  both.step(record(1));
  both.eval(evaluation(1));
  both.notice("n");
  both.end({ step: 1, interrupted: false, seconds: 1 });
  assert.deepEqual(
    heard,
    ["start", "step", "eval", "notice", "end"].flatMap((what) => [`a ${what}`, `b ${what}`]),
  );
});
