import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";

test("README's table of speed is what bench:table makes of the kept results", () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [path.join(root, "bench/table.mjs")],
    { encoding: "utf8" },
  );
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^\| SmolLM2-135M shape, bf16 \| TRL/m);
  const readme = readFileSync(path.join(root, "README.md"), "utf8");
  assert.ok(readme.includes(stdout.trim()), `README.md lacks:\n${stdout}`);
});
