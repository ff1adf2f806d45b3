import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";

const folder = path.join(root, "examples");

/** What each example prints when it works: a line may not be missing, and numbers are looked at below. */
const expected: Readonly<Record<string, RegExp>> = {
  "attention.mjs": /^largest difference: o \d\.\de-\d+, dQkv \d\.\de-\d+\n$/,
  "simper-loss.mjs":
    /^loss (-?0\.\d{6}), expected \1\nlargest difference of the gradient: \d\.\de-\d+\n$/,
  "custom-loss.mjs":
    /^on held-out pairs after 0 steps: 0\.\d{4}\n(step \d+ {2}loss 0\.\d{4}\n){10}on held-out pairs after 10 steps: 0\.\d{4}\na pair had enough of a margin [1-9]\d* times\n$/,
  "embedded-training.mjs":
    /^(step \d+\/10 {2}loss \S+ {2}\d+ tokens\/s\n){5}stopped after step 5, interrupted: true\n(step \d+\/10 .*\n){5}went on to step 10, interrupted: false\n$/,
  "score-and-generate.mjs":
    /^What is 17 \+ 25\? {2}-> {2}\S.*\nWhat is 8 \+ 5\? {2}-> {2}\S.*\n(What is 17 \+ 25\? {2}4[23]: mean log-probability -\d\.\d{3}\n){2}$/,
};

for (const [file, output] of Object.entries(expected)) {
  test(`examples: ${file} runs as it stands`, () => {
    // From another folder: an example finds its files by itself.
    const run = spawnSync(process.execPath, [path.join(folder, file)], {
      cwd: path.dirname(root),
      encoding: "utf8",
      timeout: 120_000,
    });
    assert.equal(run.status, 0, run.stdout + run.stderr);
    assert.equal(run.stderr, "");
    assert.match(run.stdout, output);
  });
}

test("examples: each is tested, short, and says how it is run", () => {
  const files = readdirSync(folder).filter((file) => file.endsWith(".mjs"));
  assert.deepEqual(files.sort(), Object.keys(expected).sort());
  for (const file of files) {
    const text = readFileSync(path.join(folder, file), "utf8");
    const lines = text.trimEnd().split("\n");
    assert.ok(lines.length < 80, `${file} has ${lines.length} lines`);
    assert.match(text, new RegExp(`^//   node examples/${file}`, "m"));
  }
});
