import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { CheckpointError } from "#src/errors.js";
import { encodeEvent } from "#src/report/event.js";
import {
  combineReporters,
  createTensorboardReporter,
  createTrainerState,
  type Reporter,
  recipeReporters,
  unloggedSteps,
} from "#src/report/index.js";
import { runFolder } from "#src/report/tensorboard.js";
import { crc32c, tfRecord } from "#src/report/tfrecord.js";
import { readEvents } from "./event-file.js";
import { evaluation, record, run } from "./records.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-tensorboard-"));
after(() => rmSync(dir, { recursive: true }));
const fresh = () => mkdtempSync(path.join(dir, "run-"));

test("crc32c gives the published check values", () => {
  assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
  // RFC 3720, B.4
  assert.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa);
  assert.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43);
  assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
});

// What tensorboard 2.21.0's RecordWriter and event_pb2.Event make of the same two events.
const VERSION_RECORD =
  "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
const SCALAR_RECORD =
  "3e00000000000000d9d240e70900000060b813da4110ac022a300a110a0a747261696e2f6c6f737315000080be0a1b0a14" +
  "6576616c2f726577617264732f6d617267696e73156f12833a1429ee2f";

test("an event is written byte for byte as tensorboard writes it", () => {
  const version = tfRecord(encodeEvent(1.5, { fileVersion: "brain.Event:2" }));
  assert.equal(version.toString("hex"), VERSION_RECORD);
  const scalars = { "train/loss": -0.25, "eval/rewards/margins": 1e-3 };
  const event = tfRecord(encodeEvent(1.75e9, { step: 300, scalars }));
  assert.equal(event.toString("hex"), SCALAR_RECORD);
});

test("steps beyond 31 bits keep all their bits", () => {
  const step = 2 ** 40 + 5;
  const file = path.join(fresh(), "large");
  writeFileSync(file, tfRecord(encodeEvent(0, { step, scalars: { a: 1 } })));
  assert.deepEqual(readEvents(file)[0]!.step, step);
});

test("tensorboard: means over logging_steps and every evaluation, under transformers' names", () => {
  const folder = path.join(fresh(), "made", "on", "demand");
  const reporter = createTensorboardReporter(folder);
  const before = Date.now() / 1e3;
  reporter.start(run("unused"));
  for (let step = 1; step <= 6; step++) {
    reporter.step(record(step));
    if (step === 5) reporter.eval(evaluation(5));
  }
  reporter.end({ step: 6, interrupted: true, seconds: 2.5 });
  const names = readdirSync(folder);
  assert.equal(names.length, 1);
  assert.match(names[0]!, /^events\.out\.tfevents\.\d+\./);
  const [first, ...events] = readEvents(path.join(folder, names[0]!));
  assert.equal(first!.fileVersion, "brain.Event:2");
  for (const event of events) {
    assert.ok(event.wallTime >= before && event.wallTime <= Date.now() / 1e3);
  }
  assert.deepEqual(
    events.map(({ step }) => step),
    [4, 5, 6, 6],
  );
  const [four, five, six, end] = events.map(({ scalars }) => scalars);
  assert.equal(four!["train/loss"], Math.fround(-0.025)); // mean of -0.01 … -0.04
  assert.equal(four!["train/rewards/accuracies"], 0.5);
  assert.equal(four!["train/learning_rate"], Math.fround(4e-6));
  assert.equal(four!["train/grad_norm"], 4);
  assert.equal(four!["train/epoch"], Math.fround(0.4));
  assert.deepEqual(five, {
    "eval/loss": -0.5,
    "eval/rewards/accuracies": 0.75,
    "eval/rewards/margins": 0.25,
  });
  assert.equal(six!["train/loss"], Math.fround(-0.055));
  assert.deepEqual(end, { "train/train_runtime": 2.5 });
});

test("tensorboard: a resumed run goes on with the means of an uninterrupted one", () => {
  const events = (folders: string[]) =>
    folders
      .flatMap((folder) => readdirSync(folder).map((name) => path.join(folder, name)))
      .flatMap((file) => readEvents(file))
      .filter(({ scalars }) => "train/loss" in scalars)
      .map(({ step, scalars }) => [step, scalars["train/loss"], scalars["train/rewards/margins"]]);
  const steps = (reporter: Reporter, from: number, to: number) => {
    for (let step = from; step <= to; step++) reporter.step(record(step));
  };
  const whole = fresh();
  const uninterrupted = createTensorboardReporter(whole);
  uninterrupted.start(run("unused"));
  steps(uninterrupted, 1, 10);
  for (const at of [4, 6, 7]) {
    const [before, after] = [fresh(), fresh()];
    const state = createTrainerState();
    const first = combineReporters([createTensorboardReporter(before), state]);
    first.start(run("unused"));
    steps(first, 1, at);
    const second = createTensorboardReporter(after);
    second.start({ ...run("unused", at), unloggedSteps: unloggedSteps(state.toJson()) });
    steps(second, at + 1, 10);
    assert.deepEqual(events([before, after]), events([whole]), `resumed after step ${at}`);
  }
  assert.deepEqual(unloggedSteps(undefined), []);
});

test("tensorboard: what is reported is in the file at once, whole, and a second run has its own", () => {
  const folder = fresh();
  for (let i = 0; i < 2; i++) {
    const reporter = createTensorboardReporter(folder);
    reporter.start({ ...run("unused"), loggingSteps: 1 });
    reporter.step(record(1));
  }
  const files = readdirSync(folder);
  assert.equal(files.length, 2);
  for (const file of files) assert.equal(readEvents(path.join(folder, file)).length, 2);
});

test("tensorboard: a folder that cannot be written is an error that names it", () => {
  const file = path.join(fresh(), "file");
  writeFileSync(file, "");
  assert.throws(
    () => createTensorboardReporter(path.join(file, "runs")).start(run("unused")),
    (error: unknown) =>
      error instanceof CheckpointError &&
      error.message.startsWith(`${file}/runs: cannot be written: `) &&
      /report_to/.test(error.hint ?? ""),
  );
});

test("the folder of a run is named as transformers names it", () => {
  const name = runFolder("out", new Date(2026, 10, 4, 2, 31, 41));
  assert.equal(name, path.join("out", "runs", `Nov04_02-31-41_${os.hostname()}`));
});

test("report_to: nothing is written where nothing is asked for", () => {
  const outputDir = fresh();
  const none = (reportTo: "none" | null | [] | "mlflow") =>
    recipeReporters({ reportTo, loggingDir: null, project: "p", outputDir }, assert.fail, {}, () =>
      assert.fail("looked for wandb"),
    );
  for (const reportTo of ["none", null, [], "mlflow"] as const) {
    assert.deepEqual(none(reportTo as never), { reporters: [], notices: [] });
  }
});

test("report_to: tensorboard writes below output_dir, or into logging_dir", () => {
  for (const asked of ["tensorboard", ["tensorboard"], "all"] as const) {
    const outputDir = fresh();
    const loggingDir = asked === "tensorboard" ? path.join(outputDir, "logs") : null;
    const options = { reportTo: asked as never, loggingDir, project: "p", outputDir };
    const { reporters, notices } = recipeReporters(options, assert.fail, {}, () => undefined);
    assert.deepEqual([reporters.length, notices], [1, []]);
    reporters[0]!.start(run(outputDir));
    const folder = loggingDir ?? path.join(outputDir, "runs");
    assert.ok(existsSync(folder));
    assert.equal(readdirSync(folder).length, 1);
  }
});
