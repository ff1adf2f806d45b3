import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";
import { temporaryFolder } from "../train/support.js";

const page = readFileSync(path.join(root, "docs", "library.md"), "utf8");
const blocks = [...page.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, code]) => code!);

/** What the blocks of docs/library.md print, in order. */
const printed = [
  /^1 -0\.\d+\n2 -0\.\d+\n3 -0\.\d+\ndone\n$/,
  /^$/,
  /^$/,
  /^$/,
  /^\S.*\n-\d\.\d+\n$/,
  /^Float32Array\(32\) \[\n/,
];

test("library.md: it has a block for each output expected here", () => {
  assert.equal(blocks.length, printed.length);
});

for (const [i, code] of blocks.entries()) {
  test(`library.md: block ${i + 1} runs as it stands`, (t) => {
    const folder = temporaryFolder(t);
    const script = code.replaceAll("outputs/library", folder);
    const run = spawnSync(process.execPath, ["--input-type=module", "--eval", script], {
      cwd: root, // where the package can import itself, and configs/ is
      encoding: "utf8",
      timeout: 120_000,
    });
    assert.equal(run.status, 0, run.stdout + run.stderr);
    assert.match(run.stdout, printed[i]!);
    if (script !== code) assert.ok(existsSync(path.join(folder, "model.safetensors")));
  });
}

test("library.md: its links lead to files, and name every example", () => {
  const targets = [...page.matchAll(/\]\(([^)#]+)\)/g)].map(([, target]) => target!);
  for (const target of targets) assert.ok(existsSync(path.join(root, "docs", target)), target);
  const examples = readdirSync(path.join(root, "examples")).filter((file) => /\.mjs$/.test(file));
  const named = targets
    .filter((target) => /\.mjs$/.test(target))
    .map((file) => path.basename(file));
  assert.deepEqual(named.sort(), examples.sort());
});
