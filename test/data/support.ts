import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import * as z from "zod";
import { type DataConfig, dataFields } from "#src/data/schema.js";
import { DataError } from "#src/errors.js";

const schema = z.strictObject(dataFields);

/** The data part of a recipe with its defaults. */
export function dataConfig(values: Partial<DataConfig> = {}): DataConfig {
  return schema.parse({ datasetMixer: {}, ...values });
}

/** A folder of files that is removed after the test. Values that are not strings become JSON lines. */
export async function folderOf(
  t: TestContext,
  files: Readonly<Record<string, string | Buffer | readonly unknown[]>>,
): Promise<string> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "simper-data-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(folder, name);
    await mkdir(path.dirname(file), { recursive: true });
    const isText = typeof content === "string" || Buffer.isBuffer(content);
    writeFileSync(
      file,
      isText ? content : content.map((row) => `${JSON.stringify(row)}\n`).join(""),
    );
  }
  return folder;
}

/** Collects an async iterable; `Array.fromAsync` is not in Node 20. */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const value of source) out.push(value);
  return out;
}

/** For `assert.rejects` and `assert.throws`: a `DataError` whose message and hint match. */
export function dataError(message: RegExp, hint?: RegExp): (error: unknown) => boolean {
  return (error) => {
    if (!(error instanceof DataError)) throw error;
    if (!message.test(error.message)) throw new Error(`message: ${error.message}`);
    if (hint !== undefined && !hint.test(error.hint ?? "")) throw new Error(`hint: ${error.hint}`);
    return true;
  };
}
