import path from "node:path";
import { DataError } from "../../errors.js";
import { countJson, countJsonl, type RawRow, readJson, readJsonl } from "./jsonl.js";

export type { RawRow } from "./jsonl.js";

/** How to read one kind of data file. */
export interface Format {
  /** Rows in file order. */
  read(file: string): AsyncGenerator<RawRow>;
  /** Number of rows. */
  count(file: string): Promise<number>;
}

/** Every format, by file name extension. A new one is one file here and one line below. */
export const formats: Readonly<Record<string, Format>> = {
  ".jsonl": { read: readJsonl, count: countJsonl },
  ".json": { read: readJson, count: countJson },
};

/** True for a file name with the extension of a known format. */
export function isDataFile(file: string): boolean {
  return path.extname(file).toLowerCase() in formats;
}

/** The format of a file, by its extension. */
export function formatOf(file: string): Format {
  const format = formats[path.extname(file).toLowerCase()];
  if (format === undefined) {
    throw new DataError(`${file}: expected a data file (${Object.keys(formats).join(", ")})`, {
      hint: "convert the file to JSON Lines: one JSON object per line",
    });
  }
  return format;
}
