import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { allCases } from "../ops/cases/index.js";
import { smallCases } from "../ops/cases/small.js";
import { given, type OpCase, out } from "../ops/harness/case.js";
import { writeReplay } from "../ops/harness/replay.js";
import { root } from "../support/paths.js";

// scripts/sanitize-cuda.sh builds the runner and names it here, so that nothing is skipped there.
const runner = process.env.SIMPER_REPLAY ?? path.join(root, "build/emulated/simper_replay");
const skip =
  process.env.SIMPER_REPLAY === undefined && !existsSync(runner)
    ? `there is no ${path.relative(root, runner)}: npm run test:cuda-sanitizers builds it`
    : false;

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-replay-"));
after(() => rmSync(dir, { recursive: true }));

function replay(...words: string[]) {
  return spawnSync(runner, words, { encoding: "utf8", maxBuffer: 2 ** 26 });
}

let files = 0;

/** What the runner says about these cases. */
function replayCases(cases: readonly OpCase[], ...words: string[]) {
  const file = path.join(dir, `${files++}.bin`);
  writeReplay(file, cases);
  return replay(...words, file);
}

const fill = (args: Partial<OpCase["args"]>, expected: number): OpCase => ({
  op: "fill",
  name: "by hand",
  args: { x: out("f32", [2, 3], { rowGap: 2 }), value: 1.5, ...args } as OpCase["args"],
  reference: () => ({ x: new Float64Array(6).fill(expected) }),
  bytes: 0,
  flops: 0,
});

/** One of the cases of every op. */
const oneOfEach = [...new Map(allCases.map((opCase) => [opCase.op, opCase])).values()];

for (const device of ["cpu", "emulated"]) {
  test(`replay: every op has a case that passes on the ${device} device`, { skip }, () => {
    const { status, stdout, stderr } = replayCases(oneOfEach, "--device", device);
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, new RegExp(`: ${oneOfEach.length} cases, \\d+ runs, 0 failed`));
  });

  test(`replay: a wrong result on the ${device} device is noticed`, { skip }, () => {
    const { status, stdout } = replayCases([fill({}, 1.5 + 3e-5)], "--device", device);
    assert.equal(status, 1);
    assert.match(stdout, /^FAILED fill \[by hand\] x: relative error .*, expected at most 1e-05/m);
    const lost = fill({ value: Number.NaN }, 1.5);
    assert.match(
      replayCases([lost], "--device", device).stdout,
      /^FAILED fill \[by hand\] x: element 0 is nan, expected 1\.5 ±/m,
    );
  });

  test(`replay: an input that changed on the ${device} device is noticed`, { skip }, () => {
    const input = fill({ x: given("bf16", [2, 3], new Float64Array(6)) }, 0);
    assert.match(
      replayCases([input], "--device", device).stdout,
      /^FAILED fill \[by hand\] x: the input changed at row 0, column 0/m,
    );
  });

  test(`replay: memory outside of an output on the ${device} device is noticed`, { skip }, () => {
    // Two means are written over coefficients of which there are none: into the guard behind them.
    const outside: OpCase = {
      op: "simperLoss",
      name: "by hand",
      args: {
        mean: out("f32", [2], { over: "coefficient" }),
        loss: out("f32", [2]),
        coefficient: out("f32", [0]),
        logp: given("f32", [0], []),
        responses: given("i32", [2, 3], new Array<number>(6).fill(0)),
        scale: 1,
      },
      reference: () => ({ mean: [0, 0], loss: [0, 0], coefficient: [] }),
      bytes: 0,
      flops: 0,
    };
    assert.match(
      replayCases([outside], "--device", device).stdout,
      /^FAILED simper_loss \[by hand\] coefficient: memory at row 0, column 0 was written/m,
    );
  });

  test(`replay: a call that breaks its contract on the ${device} device is noticed`, {
    skip,
  }, () => {
    const broken = fill({ x: out("i32", [2, 3]) }, 0);
    assert.match(
      replayCases([broken], "--device", device).stdout,
      /^FAILED fill \[by hand\] fill: x has dtype i32, expected f32 or bf16/m,
    );
  });
}

test("replay: each policy runs with each seed", { skip }, () => {
  const { stdout } = replayCases([fill({}, 1.5)], "--policies", "random,skewed", "--seeds", "3");
  assert.match(stdout, /: 1 cases, 6 runs, 0 failed/);
});

test("replay: a damaged file is refused, wherever it ends", { skip }, () => {
  const file = path.join(dir, "whole.bin");
  writeReplay(file, [fill({}, 1.5)]);
  const whole = readFileSync(file);
  for (let length = 0; length < whole.length; length += length < 200 ? 1 : 37) {
    writeFileSync(file, whole.subarray(0, length));
    const { status, stderr } = replay(file);
    assert.equal(status, 2, `${length} of ${whole.length} bytes: ${stderr}`);
    assert.match(stderr, /whole\.bin: .*; write it again: node scripts\/replay-cases\.mjs$/m);
  }
});

test("replay: the message says what is wrong with a damaged file", { skip }, () => {
  const file = path.join(dir, "damaged.bin");
  writeReplay(file, [fill({}, 1.5)]);
  const whole = readFileSync(file);
  const changed = (at: number, ...bytes: number[]) => {
    const copy = Buffer.from(whole);
    copy.set(bytes, at);
    return copy;
  };
  // magic 0, version 8, cases 12, bytes of the case 16, op 24, name 32, arguments 43, x 47, kind 52, role 53,
  // dtype 54, rank 55, owner 56, shape 60, row stride 76, offset 84.
  for (const [bytes, message] of [
    [Buffer.from("not a replay file"), "is not a replay file"],
    [changed(8, 9), "version 9, expected 1"],
    [changed(12, 2), "case 2 of 2: ends inside its size: 8 bytes, 0 are left"],
    [Buffer.concat([whole, Buffer.from("x")]), "1 bytes follow the last case"],
    [changed(20, 1), "case 1 of 1: it has \\d+ bytes, the file \\d+ more"],
    [changed(25, 255), "case 1 of 1: op needs \\d+ bytes, \\d+ are left of the case"],
    [changed(43, 99), "99 arguments, expected at most 64"],
    [changed(52, 2), "kind is 2, expected below 2"],
    [changed(53, 7), "role is 7, expected below 4"],
    [changed(55, 9), "rank is 9, expected 1 to 4"],
    // Without memory of its own, x is followed by its tolerance: the file has the size of its memory there.
    [
      changed(56, 1),
      "tolerance is \\d+|argument x: lies over value, which has no memory of its own",
    ],
    [changed(56, 5), "tolerance is \\d+|argument x: owner is 5, expected below 2"],
    [changed(65, 255), "shape is \\d+, expected at most"],
    [changed(68, 2), "the reference has 6 elements, the tensor 4"],
    [changed(76, 2), "argument x: its rows overlap"],
    [changed(84, 255), "argument x: its rows end behind the \\d+ bytes of its memory"],
  ] as const) {
    writeFileSync(file, bytes);
    const { status, stderr } = replay(file);
    assert.equal(status, 2, `expected: ${message}`);
    assert.match(stderr, new RegExp(message));
  }
  const { status, stderr } = replay(path.join(dir, "absent.bin"));
  assert.equal(status, 2);
  assert.match(stderr, /absent\.bin: cannot be read: No such file or directory/);
});

test("replay: a wrong call of the runner is told what there is", { skip }, () => {
  for (const [words, message] of [
    [[], "no file"],
    [["a", "b"], "one file, received a and b"],
    [["--fast", "a"], "--fast is no option"],
    [["--seeds"], "--seeds needs a value"],
    [["--seeds", "0", "a"], "--seeds is 0, expected a number from 1 on"],
    [["--policies", "random,fair", "a"], "there is no policy fair"],
    [["--device", "tpu", "a"], "--device is tpu, expected cpu or emulated"],
  ] as const) {
    const { status, stderr } = replay(...words);
    assert.equal(status, 2);
    assert.match(stderr, new RegExp(`^simper_replay: ${message}`));
    assert.match(stderr, /^Usage: simper_replay \[options\] FILE/m);
  }
});

test("replay: the small cases cover every op", () => {
  const ops = (cases: readonly OpCase[]) => [...new Set(cases.map(({ op }) => op))].sort();
  assert.deepEqual(ops(smallCases()), ops(allCases));
});

test("replay: small attention cases take every two lengths of prompt, chosen and rejected", () => {
  for (const op of ["attentionForward", "attentionBackward"]) {
    const pairs = smallCases()
      .filter((opCase) => opCase.op === op)
      .flatMap(({ name }) => name.replace(/^.*: /, "").split(", "))
      .map((pair) => pair.split("+").map(Number));
    const lengths = [...new Set(pairs.flat())];
    for (const [i, j] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ] as const) {
      const met = new Set(pairs.map((pair) => `${pair[i]} ${pair[j]}`));
      assert.equal(met.size, lengths.length ** 2, `${op}: parts ${i} and ${j}`);
    }
  }
});
