import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { root } from "../support/paths.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-fuzz-test-"));
after(() => rmSync(dir, { recursive: true }));

function fuzz(...words: string[]) {
  const script = path.join(root, "scripts", "fuzz.mjs");
  // Findings are kept under TMPDIR: here, so that they go with the test.
  const env = { ...process.env, TMPDIR: dir };
  return spawnSync(process.execPath, [script, ...words], { encoding: "utf8", env });
}

/** A target whose reader does `body` with the text of an input. */
function target(name: string, body: string): string {
  const file = path.join(dir, `${name}.mjs`);
  writeFileSync(
    file,
    `export const extension = ".txt";
    export const exitCode = 2;
    export const generate = (random) => Buffer.from(String(random.below(50)));
    export async function run(file, bytes) {
      const text = bytes.toString();
      const refuse = (exitCode) => Object.assign(new Error(text), { code: "ERR_SIMPER_TEST", exitCode });
      ${body}
      return "read";
    }`,
  );
  return file;
}

for (const name of ["safetensors", "pieces", "jsonl", "yaml"]) {
  test(`the ${name} target reads some inputs, refuses others and finds nothing`, () => {
    const { status, stdout, stderr } = fuzz(name, "--seconds", "1.5", "--seed", "7");
    assert.equal(status, 0, stderr);
    const [, inputs, refused] = /: (\d+) inputs, (\d+) refused, .* seed 7: no finding/.exec(
      stdout,
    )!;
    assert.ok(Number(refused) > 0 && Number(refused) < Number(inputs), stdout);
  });
}

const bugs: Readonly<Record<string, string>> = {
  "an error that is not ours": 'if (text === "7") throw new TypeError("x is undefined");',
  "an error with another exit code": 'if (text === "7") throw refuse(1);',
  "a crash": 'if (text === "7") process.abort();',
  "memory without end":
    'if (text === "7") { globalThis.kept = []; for (;;) globalThis.kept.push(new Array(1e6).fill(text)); }',
};
for (const [name, body] of Object.entries(bugs)) {
  test(`${name} is a finding, and its input is kept`, () => {
    const file = target(name.replaceAll(" ", "-"), body);
    const { status, stdout, stderr } = fuzz(file, "--seconds", "20", "--seed", "3");
    assert.equal(status, 1, stdout);
    const folder = /FINDING after .* input kept in (\S+)$/m.exec(stderr)![1]!;
    const [input] = readdirSync(folder);
    assert.equal(readFileSync(path.join(folder, input!), "utf8"), "7");
    if (name.startsWith("an error")) {
      const again = fuzz(file, "--input", path.join(folder, input!));
      assert.equal(again.status, 1, "the input repeats it");
    }
  });
}

test("refusals of the right kind are none", () => {
  const file = target("fine", 'if (text === "7") throw refuse(2);');
  const { status, stdout } = fuzz(file, "--seconds", "0.5", "--seed", "3");
  assert.equal(status, 0);
  assert.match(stdout, /[1-9]\d* refused/);
});
