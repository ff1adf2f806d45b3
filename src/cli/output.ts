import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { InvalidArgumentError } from "commander";
import { writeError } from "../checkpoint/files.js";

/** JSON lines to a file, or to stdout where none is named. */
export interface LineWriter {
  write(value: unknown): Promise<void>;
  close(): Promise<void>;
}

/** @throws CheckpointError when the file cannot be written. */
export function openLines(file: string | undefined): LineWriter {
  if (file === undefined) {
    return {
      write: async (value) => {
        if (!process.stdout.write(`${JSON.stringify(value)}\n`))
          await once(process.stdout, "drain");
      },
      close: async () => {},
    };
  }
  const stream = createWriteStream(file);
  const failed = new Promise<never>((_, reject) => {
    stream.on("error", (error) => reject(writeError(file, error)));
  });
  failed.catch(() => {}); // reported by the next write
  return {
    write: async (value) => {
      if (!stream.write(`${JSON.stringify(value)}\n`))
        await Promise.race([once(stream, "drain"), failed]);
    },
    close: async () => {
      await Promise.race([new Promise<void>((done) => stream.end(done)), failed]);
    },
  };
}

/** Parser of an option that is a whole number. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isSafeInteger(value) || value < 0) {
    throw new InvalidArgumentError("expected a whole number, 0 or more.");
  }
  return value;
}

/** Parser of an option that is a number above 0. */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value))
    throw new InvalidArgumentError("expected a number above 0.");
  return value;
}

/** Parser of `--bf16 true|false`; the flag alone means true. */
export function trueOrFalse(text: string): boolean {
  if (text === "true") return true;
  if (text === "false") return false;
  throw new InvalidArgumentError("expected true or false.");
}
