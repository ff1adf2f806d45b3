import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { openDevice } from "#src/native/index.js";
import { root } from "../support/paths.js";

// The judge is judged first: kernels with known results (native/emulator/selftest.cu), and one for every kind of
// mistake, under every policy and five seeds.
const folder = path.join(root, "build/emulated");
const runner = (name: string) => path.join(folder, name);
const unless = (name: string) =>
  existsSync(runner(name)) ? false : `there is no build/emulated/${name}: npm run test:emulator`;
const plain = "simper_selftest";
const skip = unless(plain);

const SCHEDULES = [
  ["sequential", 1],
  ["reverse", 1],
  ...[1, 2, 3, 4, 5].flatMap((seed) => [["random", seed] as const, ["skewed", seed] as const]),
] as const;
type Schedule = (typeof SCHEDULES)[number];

interface Outcome {
  readonly values: readonly number[];
  readonly counts: ReadonlyMap<string, number>;
  /** The message of a launch that failed. */
  readonly error: string | undefined;
}

function run(kernel: string, [policy, seed]: Schedule = ["sequential", 1]): Outcome {
  const { stdout, stderr, status } = spawnSync(runner(plain), [kernel], {
    encoding: "utf8",
    timeout: 60_000, // a deadlock is reported: nothing waits for ever
    env: {
      ...process.env,
      SIMPER_EMULATOR_POLICY: policy,
      SIMPER_EMULATOR_SEED: String(seed),
    },
  });
  const lines = new Map(stdout.split("\n").map((line) => line.split(/: (.*)/) as [string, string]));
  const error = lines.get("error");
  assert.equal(status, error === undefined ? 0 : 1, `${kernel}, ${policy} ${seed}: ${stderr}`);
  const values = (lines.get("values") ?? "").split(" ").map((text) => Number(text));
  const counts = new Map([...lines].map(([name, value]) => [name, Number(value)]));
  return { values, counts, error };
}

const numbers = (n: number, value: (i: number) => number) =>
  Array.from({ length: n }, (_, i) => value(i));

/** a[i][k] = i − k times b[j][k] = (j + k) mod 4. */
const product = numbers(128, (e) => {
  const [i, j] = [Math.floor(e / 8), e % 8];
  return numbers(16, (k) => (i - k) * ((j + k) % 4)).reduce((a, b) => a + b, 0);
});

const sound: Readonly<Record<string, readonly number[]>> = {
  exchange: numbers(64, (i) => 63 - i),
  sums: numbers(256, (i) => 2016 + Math.floor(i / 64)), // of four blocks
  votes: numbers(32, (i) => 31 - i),
  named: numbers(64, (i) => Math.floor(i / 32)),
  product,
  product_transposed: product,
  conflicts: product,
  copies: numbers(64, (i) => ((i ^ 1) === 3 ? 0 : 4 * (i ^ 1))),
};

for (const [kernel, expected] of Object.entries(sound)) {
  test(`emulator: ${kernel} is right whoever runs first`, { skip }, () => {
    for (const schedule of SCHEDULES) {
      const { values, error } = run(kernel, schedule);
      assert.equal(error, undefined, schedule.join(" "));
      assert.deepEqual(values, expected, schedule.join(" "));
    }
  });
}

/** Mistakes that end the launch, and how the message ends. */
const refused: Readonly<Record<string, RegExp>> = {
  missing_wait: /thread \d+: the thread ends while its cp\.async are in flight; /,
  misaligned_copy: /cp\.async: the source is not aligned to 16; /,
  copy_to_global: /cp\.async: the destination is not in shared memory; /,
  divergent_barrier:
    /the thread ends while others wait at barrier\(\); |barrier\(\) after threads of the block have ended; /,
  barrier_after_exit:
    /thread \d+: (the thread ends while|.* after (lanes of the warp|threads of the block) have ended)/,
  deadlock: /nobody can go on; warp 0: 32 lanes at barrier 1; warp 1: 32 lanes at barrier 2$/,
  different_counts:
    /barrier\(1, (32|64)\) while others wait for (64|32) threads there; |nobody can go on; /,
  different_collectives:
    /the lane is at a (shuffle|ballot), others of its warp at a (ballot|shuffle); /,
  collective_after_exit:
    /(the thread ends while lanes of its warp wait at a shuffle|a shuffle after lanes of the warp have ended); /,
  shared_overrun: /an array of 16384 bytes does not fit into what is left of the 4096 bytes/,
  shared_overflow: /block \(0, 0, 0\): shared memory behind the end of an array was written$/,
  misaligned_store: /elements that move at once are not aligned to all of them; /,
  misaligned_matrix: /ldmatrix: a row is not aligned to 16; /,
};

for (const [kernel, message] of Object.entries(refused)) {
  test(`emulator: ${kernel} ends the launch with a message`, { skip }, () => {
    for (const schedule of SCHEDULES) {
      const { error } = run(kernel, schedule);
      assert.match(error ?? "no error", message, schedule.join(" "));
      assert.ok(error!.startsWith(`kernel ${kernel}, block (0, 0, 0)`), error);
    }
  });
}

test("emulator: what waits is told warp by warp", { skip }, () => {
  assert.equal(
    run("divergent_barrier").error,
    "kernel divergent_barrier, block (0, 0, 0), thread 32: the thread ends while others wait at barrier(); " +
      "warp 0: 32 lanes at barrier(); warp 1: 1 lane running, 31 lanes not begun",
  );
});

for (const [kernel, message] of [
  ["half_a_warp", "a launch with 16 threads, expected whole warps, at most 1024"],
  ["too_much_shared", "a launch with 307200 bytes of shared memory, a block has 232448"],
  [
    "too_many_rows",
    "a launch with a grid of 1 x 70000 x 1 blocks, a device takes 2^31 - 1 x 65535 x 65535",
  ],
] as const) {
  test(`emulator: a launch that no device takes is refused: ${kernel}`, { skip }, () => {
    assert.equal(run(kernel).error, `kernel votes: ${message}`);
  });
}

test("emulator: shared memory that nobody wrote yet is NaN, in every schedule", { skip }, () => {
  for (const schedule of SCHEDULES) {
    assert.ok(run("missing_barrier", schedule).values.some(Number.isNaN), schedule.join(" "));
    assert.ok(run("late_wait", schedule).values.some(Number.isNaN), schedule.join(" "));
  }
});

test("emulator: a barrier that luck makes superfluous is missed in another order", { skip }, () => {
  const lucky = (schedule: Schedule) => run("lucky_barrier", schedule).values.every((x) => x === 5);
  assert.ok(lucky(["sequential", 1]));
  assert.ok(!lucky(["reverse", 1]));
  assert.ok(!SCHEDULES.filter(([policy]) => policy === "random").every(lucky));
});

test("emulator: bank conflicts and copied bytes are counted", { skip }, () => {
  assert.equal(run("product").counts.get("bank_conflicts"), 0);
  // Two times four matrices whose eight rows begin in the same bank.
  assert.equal(run("conflicts").counts.get("bank_conflicts"), 2 * 4 * 7);
  assert.equal(run("product").counts.get("mma"), 1);
  assert.equal(run("copies").counts.get("copied_bytes"), 63 * 16);
});

test("emulator: a policy or a seed that does not exist is said so", { skip }, () => {
  const say = (policy: string, seed: string) =>
    spawnSync(runner(plain), ["exchange"], {
      encoding: "utf8",
      env: { ...process.env, SIMPER_EMULATOR_POLICY: policy, SIMPER_EMULATOR_SEED: seed },
    }).stdout;
  assert.match(
    say("backwards", "1"),
    /^error: SIMPER_EMULATOR_POLICY is "backwards", expected sequential, reverse, random or skewed$/m,
  );
  assert.match(
    say("random", "one"),
    /^error: SIMPER_EMULATOR_SEED is "one", expected a whole number$/m,
  );
});

/** What a sanitizer says of a kernel. */
function sanitized(name: string, kernel: string, policy = "sequential") {
  const { status, stderr } = spawnSync(runner(name), [kernel], {
    encoding: "utf8",
    timeout: 120_000,
    env: {
      ...process.env,
      SIMPER_EMULATOR_POLICY: policy,
      ASAN_OPTIONS: "detect_leaks=0:detect_stack_use_after_return=0",
      TSAN_OPTIONS: "halt_on_error=1:report_signal_unsafe=0",
    },
  });
  return { status, stderr };
}

test("emulator: AddressSanitizer sees the array that is too short, and no fault in sound kernels", {
  skip: unless("simper_selftest_memory"),
}, () => {
  for (const kernel of Object.keys(sound)) {
    const { status, stderr } = sanitized("simper_selftest_memory", kernel, "random");
    assert.equal(status, 0, `${kernel}: ${stderr}`);
  }
  const { status, stderr } = sanitized("simper_selftest_memory", "shared_overflow");
  assert.notEqual(status, 0);
  assert.match(stderr, /use-after-poison[\s\S]*shared_overflow/);
});

test("emulator: ThreadSanitizer sees a missing barrier that luck hides, and no race in sound kernels", {
  skip: unless("simper_selftest_races"),
}, () => {
  for (const kernel of Object.keys(sound)) {
    const { status, stderr } = sanitized("simper_selftest_races", kernel, "random");
    assert.equal(status, 0, `${kernel}: ${stderr}`);
  }
  for (const kernel of ["lucky_barrier", "missing_barrier"]) {
    const { status, stderr } = sanitized("simper_selftest_races", kernel);
    assert.notEqual(status, 0, kernel);
    assert.match(stderr, new RegExp(`data race[\\s\\S]*${kernel}`));
  }
});

test("device: the emulated one is part of no other build", (t) => {
  const binding = process.env.SIMPER_NATIVE_BINDING;
  if (binding?.includes("emulated")) return t.skip("this is the addon that has it");
  assert.throws(() => openDevice("emulated"), {
    name: "DeviceError",
    message:
      "the emulated device is not part of this build: npm run test:emulator builds it, " +
      "SIMPER_NATIVE_BINDING=build/emulated/Release/simper_native.node loads it",
  });
});
