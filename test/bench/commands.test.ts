import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { root } from "../support/paths.js";

function bench(script: "cpu" | "ops" | "gpu", ...args: string[]) {
  const file = path.join(root, "bench", `${script}.mjs`);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], {
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

test("bench:cpu trains and reports speed, memory and time by op", () => {
  const { status, stdout, stderr } = bench("cpu", "--model", "tiny", "--steps", "2");
  assert.equal(status, 0, stderr);
  const row = /^\| simper-native \| (.+) \|$/m.exec(stdout)?.[1]?.split(" | ");
  assert.ok(row, stdout);
  const [, pairs, real, computed, rss] = row.map(Number);
  assert.ok(pairs! > 0 && real! > computed! && computed! > pairs!, stdout);
  assert.ok(rss! > 20 && rss! < 4000, `peak memory ${rss} MiB`);
  assert.match(stdout, /\d+ GFLOP\/s over the step; \d+% of it in oneDNN/);
  for (const op of ["matmul", "matmul_add", "attention_backward"]) {
    assert.match(stdout, new RegExp(`^\\| ${op} \\| [1-9]\\d* \\| `, "m"));
  }
});

test("bench:ops reports the ops that were asked for", () => {
  const { status, stdout, stderr } = bench("ops", "--model", "tiny", "--only", "swiglu");
  assert.equal(status, 0, stderr);
  const ops = [...stdout.matchAll(/^\| (\w+) \| .*% \|$/gm)].map((match) => match[1]);
  assert.deepEqual(ops, ["swiglu_forward", "swiglu_backward"], stdout);
});

test("bench:gpu walks a model and holds it against its ceiling", () => {
  const { status, stdout, stderr } = bench(
    ...(["gpu", "--device", "cpu", "--model", "tiny", "--steps", "1", "--pairs", "4"] as const),
  );
  assert.equal(status, 0, stderr);
  const row = /^\| a model of 160k parameters \| 2 of 2 \| no \| 4 \| (.+)% \|$/m.exec(stdout)?.[1];
  assert.ok(row, stdout);
  const [tokens, ms, rate, , , ceiling, share] = row.split(" | ").map(Number);
  assert.ok(Math.abs(rate! / ((1e3 * tokens!) / ms!) - 1) < 0.02, stdout);
  assert.ok(Math.abs(share! - (100 * rate!) / ceiling!) <= 1, stdout);
});

test("bench: a wrong option is one line and exit code 2", () => {
  const cases: [Parameters<typeof bench>, RegExp][] = [
    [["cpu", "--model", "7b"], /^bench:cpu: --model: expected 135m, m15, tiny, received 7b\n$/],
    [["cpu", "--dtype", "f16"], /^bench:cpu: --dtype: expected bf16 or f32, received f16\n$/],
    [
      ["cpu", "--steps", "banana"],
      /^bench:cpu: --steps: expected a whole number from 1 on, received banana\n$/,
    ],
    [
      ["cpu", "--peer", "python3", "--variants", "jax"],
      /^bench:cpu: --variants: expected trl-bf16, prefix-bf16, trl-fp32, received jax\n$/,
    ],
    [
      ["cpu", "--peer", "/nonexistent/python"],
      /^bench:cpu: --peer: \/nonexistent\/python cannot be run: .*ENOENT\n$/,
    ],
    [["cpu", "--no-such"], /^bench:cpu: Unknown option '--no-such'[\s\S]*--model 135m\|m15\|tiny/],
    [["ops", "--model", "7b"], /^bench:ops: --model: expected 135m, m15, tiny, received 7b\n$/],
    [["ops", "--model", "8b"], /^bench:ops: --model: expected 135m, m15, tiny, received 8b\n$/],
    [["ops", "--device", "tpu"], /^bench:ops: --device: expected cpu or cuda, received tpu\n$/],
    [
      ["gpu", "--model", "70b"],
      /^bench:gpu: --model: expected 135m, m15, tiny, 1b, 8b, received 70b\n$/,
    ],
    [
      ["gpu", "--steps", "0"],
      /^bench:gpu: --steps: expected a whole number from 1 on, received 0\n$/,
    ],
    [["ops", "--dtype", "f16"], /^bench:ops: --dtype: expected bf16 or f32, received f16\n$/],
    [["ops", "--threads", "0"], /^bench:ops: --threads: expected a whole number from 1 on, rec/],
    [["ops", "--only", "nothing"], /^bench:ops: --only: expected part of an op's name, received n/],
  ];
  for (const [args, message] of cases) {
    const { status, stderr } = bench(...args);
    assert.match(stderr, message);
    assert.equal(status, 2, stderr);
  }
});
