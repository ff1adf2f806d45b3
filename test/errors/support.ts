import assert from "node:assert/strict";
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import {
  gqaModel,
  gqaPairs,
  type PairRow,
  readLines,
  trajectoryRecipe,
  words,
} from "../train/support.js";

/** Recipe keys to change so that something is wrong. */
export type Spoilt = Readonly<Record<string, unknown>>;

/** A copy of the fixture's model in `folder`, changed. */
export function spoiltModel(
  folder: string,
  change: (weights: string, dir: string) => void,
): Spoilt {
  const dir = path.join(folder, "model");
  cpSync(gqaModel, dir, { recursive: true });
  change(path.join(dir, "model.safetensors"), dir);
  return { model_name_or_path: dir };
}

/** A tensor in a safetensors header. */
export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: number[];
}

/** The model with another safetensors header over the same data; `change` edits the fields or returns a text. */
export function spoiltHeader(
  folder: string,
  change: (fields: Record<string, HeaderEntry>) => string | undefined,
): Spoilt {
  return spoiltModel(folder, (file) => {
    const bytes = readFileSync(file);
    const length = Number(bytes.readBigUInt64LE(0));
    const fields = JSON.parse(bytes.toString("utf8", 8, 8 + length));
    const text = Buffer.from(change(fields) ?? JSON.stringify(fields));
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file, Buffer.concat([prefix, text, bytes.subarray(8 + length)]));
  });
}

/** The fixture's pairs with line 3 replaced; a value that is text stands there as it is. */
export function spoiltLine3(folder: string, line: (row: PairRow) => unknown): Spoilt {
  const rows = readLines<PairRow>(gqaPairs);
  const lines = rows.map((row) => JSON.stringify(row));
  const third = line(rows[2]!);
  lines[2] = typeof third === "string" ? third : JSON.stringify(third);
  const file = path.join(folder, "pairs.jsonl");
  writeFileSync(file, `${lines.join("\n")}\n`);
  return { dataset_mixer: `{${file}: 1}` };
}

/** A train command of the fixture's recipe. */
export function trainCommand(outputDir: string, changes: Spoilt = {}): string[] {
  const all = { model_name_or_path: gqaModel, output_dir: outputDir, ...changes };
  return ["train", trajectoryRecipe, ...words(all)];
}

/** A command that ended as `exitCode` says, with one error that matches and no trace of the program. */
export function checkRefusal(
  ended: { code: number | null; stdout: string; stderr: string },
  exitCode: number,
  message: RegExp,
): void {
  const { code, stdout, stderr } = ended;
  assert.equal(code, exitCode, stderr);
  assert.match(stderr, message);
  const errors = stderr
    .split("\n")
    .filter((line) => line.startsWith("simper-native: "))
    .filter((line) => !line.startsWith("simper-native: not in the recipe"));
  assert.equal(errors.length, 1, stderr);
  assert.doesNotMatch(stdout + stderr, /\n\s+at |Error:|undefined|\[object|--verbose/);
}

/** Names of locks and temporary files in a folder. */
export function leftovers(folder: string): string[] {
  return readdirSync(folder).filter((name) => /^\.(tmp|lock)-/.test(name));
}
