import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { CheckpointError } from "#src/errors.js";
import { createOfflineWandbReporter, logRecord, offlineRun } from "#src/report/wandb-file.js";
import { fields } from "./event-file.js";
import { evaluation, record, run } from "./records.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-offline-"));
after(() => rmSync(dir, { recursive: true }));

/** CRC-32 of IEEE 802.3, bit by bit. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

/** The records behind a log's blocks; `at` is where the log stands in its file. */
function readLog(bytes: Buffer, at: number): Buffer[] {
  const found: Buffer[] = [];
  let open: Buffer[] | undefined;
  let offset = 0;
  while (offset < bytes.length) {
    const left = 32768 - ((at + offset) % 32768);
    if (left < 7) {
      assert.ok(bytes.subarray(offset, offset + left).every((byte) => byte === 0));
      offset += left;
      continue;
    }
    const length = bytes.readUInt16LE(offset + 4);
    assert.ok(length + 7 <= left, "a chunk crosses a block");
    const typed = bytes.subarray(offset + 6, offset + 7 + length);
    assert.equal(bytes.readUInt32LE(offset), crc32(typed));
    const type = typed[0]!;
    assert.equal(type === 1 || type === 2, open === undefined, `type ${type}`);
    open = [...(open ?? []), typed.subarray(1)];
    if (type === 1 || type === 4) {
      found.push(Buffer.concat(open));
      open = undefined;
    }
    offset += 7 + length;
  }
  assert.equal(open, undefined);
  return found;
}

test("wandb file: records of any length survive the blocks, wherever in one they begin", () => {
  for (const at of [7, 32768 - 8, 32768 - 7, 32768 - 6, 32768 - 1, 32768, 40000]) {
    for (const length of [1, 8, 32761, 32762, 100_000]) {
      const data = Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7 + length) & 255));
      const [back, ...more] = readLog(logRecord(data, at), at);
      assert.deepEqual(more, []);
      assert.ok(data.equals(back!), `${length} bytes at ${at}`);
    }
  }
});

type Message = ReturnType<typeof fields>;
const inside = (message: Message, field: number): Message[] =>
  message.filter((part) => part.field === field).map(({ value }) => fields(value as Buffer));
const text = (message: Message, field: number): string | undefined =>
  message.find((part) => part.field === field)?.value.toString();
const whole = (message: Message, field: number): number | undefined => {
  const value = message.find((part) => part.field === field)?.value;
  return value === undefined ? undefined : Number(value);
};
const json = (message: Message, field: number): Record<string, unknown> =>
  Object.fromEntries(
    inside(message, field).map((item) => [text(item, 1), JSON.parse(text(item, 16)!)]),
  );

test("wandb file: a run with its settings, its metrics against train/global_step, every line, its end", () => {
  const offline = offlineRun(dir, new Date(2026, 10, 4, 2, 31, 41));
  assert.match(offline.folder, /\/wandb\/offline-run-20261104_023141-[0-9a-z]{8}$/);
  const reporter = createOfflineWandbReporter(offline, {
    project: "mine",
    config: { learningRate: 1e-6, datasetSplits: ["a"], text: "x".repeat(40_000) },
  });
  reporter.start({ ...run("o"), runName: "tiny" });
  for (let step = 1; step <= 4; step++) reporter.step(record(step));
  reporter.eval({ ...evaluation(4), eval_loss: Number.NaN } as never);
  reporter.end({ step: 4, interrupted: false, seconds: 2 });

  assert.deepEqual(readdirSync(offline.folder).sort(), ["files", `run-${offline.id}.wandb`]);
  const bytes = readFileSync(path.join(offline.folder, `run-${offline.id}.wandb`));
  assert.equal(bytes.subarray(0, 7).toString("hex"), "3a572642e1be00");
  const records = readLog(bytes.subarray(7), 7).map((data) => fields(data));
  assert.deepEqual(
    records.map((message) => whole(message, 1)),
    records.map((_, i) => i + 1),
  );
  const [header] = records.flatMap((message) => inside(message, 21));
  assert.equal(text(inside(header!, 1)[0]!, 1), "simper-native");
  const [about] = records.flatMap((message) => inside(message, 17));
  assert.deepEqual(
    [text(about!, 1), text(about!, 3), text(about!, 8)],
    [offline.id, "mine", "tiny"],
  );
  const settings = json(inside(about!, 4)[0]!, 1);
  assert.equal(settings.learningRate, 1e-6);
  assert.deepEqual(settings.datasetSplits, ["a"]);

  const metrics = records.flatMap((message) => inside(message, 12));
  assert.equal(text(metrics[0]!, 1), "train/global_step");
  for (const metric of metrics.slice(1)) assert.equal(text(metric, 4), "train/global_step");
  assert.ok(metrics.some((metric) => text(metric, 1) === "train/loss"));

  const history = records.flatMap((message) => inside(message, 2));
  assert.deepEqual(
    history.map((line) => whole(inside(line, 2)[0]!, 1)),
    [0, 1, 2],
  );
  const first = json(history[0]!, 1);
  assert.equal(first["train/global_step"], 4);
  assert.ok(Math.abs((first["train/loss"] as number) + 0.025) < 1e-12);
  assert.equal(first._step, 0);
  const nan = inside(history[1]!, 1).find((item) => text(item, 1) === "eval/loss");
  assert.equal(text(nan!, 16), "NaN");
  assert.equal(records.flatMap((message) => inside(message, 3)).length, 3);
  assert.equal(records.flatMap((message) => inside(message, 18)).length, 1);
});

test("wandb file: a folder that cannot be written is an error that names the file", () => {
  const file = path.join(dir, "file");
  writeFileSync(file, "");
  const reporter = createOfflineWandbReporter(offlineRun(file, new Date()), {
    project: "p",
    config: {},
  });
  assert.throws(
    () => reporter.start(run("o")),
    (error: unknown) =>
      error instanceof CheckpointError &&
      /run-\w{8}\.wandb: cannot be written: /.test(error.message) &&
      /report_to/.test(error.hint ?? ""),
  );
});
