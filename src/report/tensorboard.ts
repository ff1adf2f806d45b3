import { appendFileSync, closeSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { CheckpointError } from "../errors.js";
import { type EventContent, encodeEvent } from "./event.js";
import { createLogReporter, type LogSink } from "./logs.js";
import type { Reporter } from "./records.js";
import { tfRecord } from "./tfrecord.js";

let files = 0;

/** `runs/Nov24_02-31-41_host`, as transformers names it: TensorBoard shows each such folder as a run. */
export function runFolder(outputDir: string, at: Date): string {
  const [, month, day, , time] = at.toString().split(" "); // Tue Nov 24 2026 02:31:41 GMT+0000 (…)
  return path.join(
    outputDir,
    "runs",
    `${month}${day}_${time!.replaceAll(":", "-")}_${os.hostname()}`,
  );
}

/**
 * Writes TensorBoard's event files: the scalars that transformers logs, under the same names, every
 * `logging_steps` and after each evaluation. A resumed run writes a file of its own, whose steps go on.
 *
 * @param folder - of the event files; made when the run starts
 * @example
 * await train({ config, reporters: [createTensorboardReporter("outputs/run/runs/first")] });
 */
export function createTensorboardReporter(folder: string): Reporter {
  return createLogReporter(eventFile(folder));
}

function eventFile(folder: string): LogSink {
  const guarded = (write: () => void): void => {
    try {
      write();
    } catch (cause) {
      throw new CheckpointError(`${folder}: cannot be written: ${(cause as Error).message}`, {
        hint: "free some space, choose another logging_dir, or leave tensorboard out of report_to",
        cause,
      });
    }
  };
  let file = "";
  const append = (content: EventContent): void =>
    guarded(() => appendFileSync(file, tfRecord(encodeEvent(Date.now() / 1e3, content))));
  return {
    open() {
      const seconds = Math.floor(Date.now() / 1e3);
      // The name that TensorBoard looks for; the count keeps runs of one process apart.
      const name = `events.out.tfevents.${seconds}.${os.hostname()}.${process.pid}.${files++}`;
      file = path.join(folder, name);
      guarded(() => mkdirSync(folder, { recursive: true }));
      append({ fileVersion: "brain.Event:2" });
    },
    log: (step, scalars) => append({ step, scalars }),
    close: () =>
      guarded(() => {
        const handle = openSync(file, "a");
        try {
          fsyncSync(handle);
        } finally {
          closeSync(handle);
        }
      }),
  };
}
