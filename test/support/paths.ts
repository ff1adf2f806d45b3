import path from "node:path";
import { fileURLToPath } from "node:url";

/** Root of the repository; compiled tests live in `dist-test/<folder>/`. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

/** Path of a file under `test/fixtures`. */
export function fixture(...parts: string[]): string {
  return path.join(root, "test", "fixtures", ...parts);
}
