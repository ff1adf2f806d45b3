// Runs the compiled tests with Node's own runner: all of them, or the files whose path contains an argument.
// (`node --test` takes globs only from Node 21 on, so the files are listed here.)
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const wanted = process.argv.slice(2);
const files = readdirSync(path.join(root, "dist-test"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".test.js"))
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort()
  .map((file) => path.join(root, "dist-test", file));
if (files.length === 0) {
  console.error(
    `scripts/test.mjs: no test file matches ${wanted.join(", ") || "dist-test/**/*.test.js"}`,
  );
  process.exit(2);
}
// Each file is its own process and the ops inside are multi-threaded already: one at a time.
const run = spawnSync(process.execPath, ["--test", "--test-concurrency=1", ...files], {
  stdio: "inherit",
  cwd: root,
});
process.exit(run.status ?? 1);
