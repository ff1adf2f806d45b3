import {
  appendFileSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { CheckpointError } from "../errors.js";
import type { EvalRecord, Reporter, StepRecord } from "./records.js";

/**
 * Appends every step and evaluation to `<output_dir>/metrics.jsonl`, one JSON object a line. Each line is
 * one append, so that a killed run leaves at most its last line torn. A resumed run first cuts the file
 * back to its checkpoint's step; a new run starts a new file.
 */
export function createJsonlReporter(): Reporter {
  let file = "";
  const guarded = (write: () => void): void => {
    try {
      write();
    } catch (cause) {
      throw new CheckpointError(`${file}: cannot be written: ${(cause as Error).message}`, {
        hint: "free some space, or choose another output_dir; the last checkpoint is intact",
        cause,
      });
    }
  };
  const append = (record: StepRecord | EvalRecord): void =>
    guarded(() => appendFileSync(file, `${JSON.stringify(record)}\n`));
  return {
    start({ outputDir, resumedStep, evaluatedStep = resumedStep }) {
      file = path.join(outputDir, "metrics.jsonl");
      guarded(() => {
        mkdirSync(outputDir, { recursive: true });
        if (resumedStep > 0) cutMetrics(file, resumedStep, evaluatedStep);
        else cutMetrics(file, -1);
      });
    },
    step: append,
    eval: append,
    notice() {},
    end() {
      guarded(() => {
        const handle = openSync(file, "a");
        try {
          fsyncSync(handle);
        } finally {
          closeSync(handle);
        }
      });
    },
  };
}

/**
 * Keeps the records up to and including `step`, of evaluations up to `evaluatedStep`; later ones and lines that are no record (torn by a crash)
 * go. Nothing changes on disk when nothing has to go.
 */
export function cutMetrics(file: string, step: number, evaluatedStep = step): void {
  if (!existsSync(file)) return;
  // A device may be read without end.
  if (!statSync(file).isFile()) throw new Error("expected a file, found a folder or device");
  const text = readFileSync(file, "utf8");
  const kept = text
    .split("\n")
    .filter((line) => {
      const record = recordOf(line);
      return record && record.step <= (record.evaluation ? evaluatedStep : step);
    })
    .map((line) => `${line}\n`)
    .join("");
  if (kept === text) return;
  const temporary = path.join(path.dirname(file), `.tmp-${process.pid}-0-0-metrics.jsonl`);
  try {
    const handle = openSync(temporary, "w");
    try {
      writeFileSync(handle, kept);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** The step a line belongs to, and what it is of; undefined where it is no record. */
function recordOf(line: string): { step: number; evaluation: boolean } | undefined {
  try {
    const record = JSON.parse(line) as { step?: unknown; eval_loss?: unknown } | null;
    if (typeof record?.step !== "number") return undefined;
    return { step: record.step, evaluation: record.eval_loss !== undefined };
  } catch {
    return undefined;
  }
}
