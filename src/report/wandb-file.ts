import { randomBytes } from "node:crypto";
import { appendFileSync, mkdirSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { crc32 } from "node:zlib";
import { CheckpointError } from "../errors.js";
import { createLogReporter, type LogSink } from "./logs.js";
import { messageField, textField, wholeField } from "./protobuf.js";
import type { Reporter } from "./records.js";

/** Where an offline run lies, and what it is called. */
export interface OfflineRun {
  /** `<folder>/wandb/offline-run-<time>-<id>`: what `wandb sync` is given. */
  readonly folder: string;
  readonly id: string;
}

/** Names a new run below `outputDir`, as wandb does. */
export function offlineRun(outputDir: string, at: Date): OfflineRun {
  // 36^8 ids from 8 bytes: the remainder's bias is of no matter here.
  const id = Array.from(randomBytes(8), (byte) => (byte % 36).toString(36)).join("");
  const two = (n: number): string => String(n).padStart(2, "0");
  const day = `${at.getFullYear()}${two(at.getMonth() + 1)}${two(at.getDate())}`;
  const time = `${two(at.getHours())}${two(at.getMinutes())}${two(at.getSeconds())}`;
  return { folder: path.join(outputDir, "wandb", `offline-run-${day}_${time}-${id}`), id };
}

const BLOCK = 32768;
const CHUNK_HEADER = 7;

/**
 * One record of a `.wandb` file, cut into chunks that never cross a block: crc32 of type and data (4 bytes),
 * length (2), type (1: whole, 2 first, 3 middle, 4 last), data. A tail of a block too short for a header is zeros.
 *
 * @param at - bytes that the file has
 */
export function logRecord(data: Uint8Array, at: number): Buffer {
  const parts: Buffer[] = [];
  let offset = at;
  let begin = 0;
  let first = true;
  while (begin < data.length) {
    const left = BLOCK - (offset % BLOCK);
    if (left < CHUNK_HEADER) {
      parts.push(Buffer.alloc(left));
      offset += left;
      continue;
    }
    const end = Math.min(data.length, begin + left - CHUNK_HEADER);
    const last = end === data.length;
    const chunk = Buffer.alloc(CHUNK_HEADER + end - begin);
    chunk.set(data.subarray(begin, end), CHUNK_HEADER);
    chunk.writeUInt16LE(end - begin, 4);
    chunk[6] = first ? (last ? 1 : 2) : last ? 4 : 3;
    chunk.writeUInt32LE(crc32(chunk.subarray(6)), 0);
    parts.push(chunk);
    offset += chunk.length;
    begin = end;
    first = false;
  }
  return Buffer.concat(parts);
}

/** Fields of wandb_internal.proto that a run of scalars needs. */
const record = { history: 2, summary: 3, metric: 12, run: 17, exit: 18, header: 21 } as const;

function items(field: number, values: Readonly<Record<string, unknown>>): Buffer[] {
  return Object.entries(values).map(([key, value]) =>
    messageField(field, textField(1, key), textField(16, json(value))),
  );
}

/** JSON as Python writes it: numbers that are not finite have names. */
function json(value: unknown): string {
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  return JSON.stringify(value ?? null);
}

/** What a run is listed with. */
export interface OfflineOptions {
  readonly project: string;
  readonly config: Readonly<Record<string, unknown>>;
}

/**
 * Writes an offline run of W&B, which `wandb sync` of any release uploads. Every line is whole on disk before the
 * next is logged, so that a killed run can be uploaded up to there.
 */
export function createOfflineWandbReporter(run: OfflineRun, options: OfflineOptions): Reporter {
  return createLogReporter(runFile(run, options));
}

function runFile({ folder, id }: OfflineRun, { project, config }: OfflineOptions): LogSink {
  const file = path.join(folder, `run-${id}.wandb`);
  const known = new Set<string>();
  const began = Date.now() / 1e3;
  let size = 0;
  let records = 0;
  let lines = 0;
  const guarded = (write: () => void): void => {
    try {
      write();
    } catch (cause) {
      throw new CheckpointError(`${file}: cannot be written: ${(cause as Error).message}`, {
        hint: "free some space, choose another output_dir, or leave wandb out of report_to",
        cause,
      });
    }
  };
  const append = (bytes: Uint8Array): void => {
    guarded(() => appendFileSync(file, bytes));
    size += bytes.length;
  };
  const put = (kind: keyof typeof record, ...fields: Buffer[]): void => {
    const content = messageField(record[kind], ...fields);
    append(logRecord(Buffer.concat([wholeField(1, ++records), content]), size));
  };
  const metric = (...fields: Buffer[]): void => put("metric", ...fields);
  const defined = wholeField(3, 1);
  const stepSync = wholeField(1, 1);
  return {
    open({ runName, resumedStep }) {
      // `wandb sync` puts what it makes of the run into this folder.
      guarded(() => mkdirSync(path.join(folder, "files"), { recursive: true }));
      append(Buffer.from([...Buffer.from(":W&B"), 0xe1, 0xbe, 0]));
      const version = [textField(1, "simper-native"), textField(2, "0.40.0")];
      put("header", messageField(1, ...version));
      const settings = items(1, { ...config, resumed_step: resumedStep });
      const start = messageField(17, wholeField(1, Math.floor(began)));
      const name = runName ? [textField(8, runName)] : [];
      const about = [textField(1, id), textField(3, project), messageField(4, ...settings)];
      put("run", ...about, ...name, textField(13, os.hostname()), start);
      metric(textField(1, STEP), messageField(6, defined));
    },
    log(step, values) {
      for (const name of Object.keys(values).filter((key) => !known.has(key))) {
        known.add(name);
        metric(textField(1, name), textField(4, STEP), messageField(6, stepSync));
      }
      const now = Date.now() / 1e3;
      const own = { _step: lines, _timestamp: now, _runtime: now - began };
      const row = { ...values, [STEP]: step, ...own };
      put("history", ...items(1, row), messageField(2, wholeField(1, lines)));
      put("summary", ...items(1, row));
      lines++;
    },
    close: () => put("exit", wholeField(1, 0), wholeField(2, Math.floor(Date.now() / 1e3 - began))),
  };
}

const STEP = "train/global_step";
