import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import type { InspectedPair } from "#src/data/inspect.js";
import { fixture, root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-inspect-"));
after(() => rmSync(dir, { recursive: true }));

const turn = (role: string, content: string) => ({ role, content });
writeFileSync(
  path.join(dir, "train.jsonl"),
  `${JSON.stringify({
    id: "a",
    chosen: [turn("user", "Hi"), turn("assistant", "Yo")],
    rejected: [turn("user", "Hi"), turn("assistant", "Hello, how are you?")],
  })}\n`,
);
writeFileSync(
  path.join(dir, "run.yaml"),
  [
    `model_name_or_path: ${fixture("data", "zephyr")}`,
    "dataset_mixer: {train.jsonl: 1}",
    "dataset_splits: [train]",
    "do_eval: false",
    "auto_insert_empty_system_msg: false",
    "max_length: 64",
    "max_prompt_length: 32",
  ].join("\n"),
);

function inspect(...options: string[]): { status: number | null; stdout: string; stderr: string } {
  const cli = path.join(root, "dist/cli.js");
  const env = { ...process.env, NO_COLOR: "1" };
  return spawnSync(process.execPath, [cli, "inspect", "run.yaml", ...options], {
    ...{ encoding: "utf8", cwd: dir, env },
  });
}

test("inspect --both: prints each pair under the recipe's semantics and under the other", () => {
  const { status, stdout } = inspect("--both");
  assert.equal(status, 0);
  assert.match(
    stdout,
    /^row 0 \(id a; reference\)\nprompt\n<\|user\|>\nHi<\/s>\n\nchosen \d+ tokens, \d+ scored\n/,
  );
  assert.match(
    stdout,
    /\nrow 0 \(corrected\)\nprompt\n<\|user\|>\nHi<\/s>\n<\|assistant\|>\n\nchosen/,
  );
  const scored = [...stdout.matchAll(/chosen \d+ tokens, (\d+) scored/g)].map((match) =>
    Number(match[1]),
  );
  // The header and the second EOS are scored by the reference only.
  assert.equal(scored.length, 2);
  assert.ok((scored[0] ?? 0) > (scored[1] ?? 0) + 5, scored.join(", "));
  // Without the option there is one.
  const alone = inspect().stdout;
  assert.match(alone, /^row 0 \(id a\)\n/);
  assert.doesNotMatch(alone, /corrected/);
});

test("inspect --both --out: the other semantics is a column beside rows that can be trained on", () => {
  const { status, stderr } = inspect(
    "--both",
    "--data_semantics",
    "corrected",
    "--out",
    "rows.jsonl",
  );
  assert.equal(status, 0);
  assert.match(stderr, /1 rows written to rows\.jsonl/);
  const row = JSON.parse(readFileSync(path.join(dir, "rows.jsonl"), "utf8")) as InspectedPair;
  assert.equal(row.data_semantics, "corrected");
  assert.equal(row.chosen, "Yo</s>");
  assert.equal(row.chosen_labels.filter((label) => label === 2).length, 1);
  assert.ok(row.reference !== undefined && "chosen" in row.reference);
  assert.equal(row.reference.chosen, "<|assistant|>\nYo</s>\n");
  // The template's EOS, a newline, and one more.
  assert.equal(row.reference.chosen_labels.filter((label) => label === 2).length, 2);
});
