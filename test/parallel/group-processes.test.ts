import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const probe = fileURLToPath(new URL("./probe.js", import.meta.url));

interface Failure {
  readonly message: string;
  readonly rank: number;
  readonly reported: boolean;
}

/** A rank in a process of its own. */
class Probe {
  readonly child: ChildProcess;
  readonly failure: Promise<Failure>;
  readonly exit: Promise<[code: number | null, signal: string | null]>;
  /** The first barrier that it was told of is behind it. */
  readonly passed: Promise<string>;
  readonly #port: Promise<number>;
  readonly #started: Promise<void>;

  constructor(...words: readonly number[]) {
    this.child = fork(probe, words.map(String), { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    this.exit = once(this.child, "exit") as Promise<[number | null, string | null]>;
    const told = <T>(key: string) =>
      new Promise<T>((resolve) => {
        this.child.on("message", (message: Record<string, T>) => {
          if (key in message) resolve((key === "message" ? message : message[key]) as T);
        });
      });
    this.failure = told<Failure>("message");
    this.passed = told<string>("passed");
    this.#port = told<number>("port");
    this.#started = told<void>("started");
  }

  static async open(size: number, silence: number): Promise<Probe[]> {
    const hub = new Probe(0, size, 0, silence);
    const port = await hub.#port;
    const others = Array.from(
      { length: size - 1 },
      (_, i) => new Probe(i + 1, size, port, silence),
    );
    const all = [hub, ...others];
    await Promise.all(all.map((each) => each.#started));
    return all;
  }

  tell(call: string, what = ""): void {
    this.child.send({ call, what });
  }
}

const end = async (probes: readonly Probe[]) => {
  for (const { child } of probes) child.kill("SIGKILL");
  await Promise.all(probes.map((each) => each.exit));
};

const lost = /was lost in step 17: its connection (closed|failed)/;

for (const victim of [0, 2]) {
  test(`group: rank ${victim} is killed: the others name it and what it was doing`, async () => {
    const probes = await Probe.open(4, 60);
    probes[victim]!.tell("doing", "step 17");
    for (const each of probes) each.tell("barrier", "said"); // behind it on the same connection
    await Promise.all(probes.map(({ passed }) => passed));
    const others = probes.filter((_, rank) => rank !== victim);
    for (const other of others) other.tell("barrier", "next");
    probes[victim]!.child.kill("SIGKILL");
    const failures = await Promise.all(others.map((other) => other.failure));
    for (const { message, rank } of failures) {
      assert.match(message, new RegExp(`^rank ${victim} ${lost.source}`));
      assert.equal(rank, victim);
    }
    // One of them tells the user: rank 0, or rank 1 where rank 0 is the one that is gone.
    assert.deepEqual(
      failures.map(({ reported }) => reported),
      [false, true, true],
    );
    await end(probes);
  });

  test(`group: rank ${victim} is stopped: the others name it within the bound`, async () => {
    const probes = await Probe.open(3, 3);
    probes[victim]!.child.kill("SIGSTOP");
    const others = probes.filter((_, rank) => rank !== victim);
    for (const { failure } of others) {
      const { message, rank } = await failure;
      assert.equal(message, `rank ${victim} gave no sign of life for 3 s`);
      assert.equal(rank, victim);
    }
    // Woken up it finds out that the run has ended, and does not blame the others.
    probes[victim]!.child.kill("SIGCONT");
    const { message } = await probes[victim]!.failure;
    assert.match(message, victim === 0 ? /^rank [12] was lost/ : /^rank 2 gave no sign of life/);
    await end(probes);
  });
}

test("group: a rank that exits, or dies of an error, is lost", async () => {
  for (const call of ["exit", "throw"]) {
    const probes = await Probe.open(2, 60);
    probes[1]!.tell(call, "0");
    assert.match((await probes[0]!.failure).message, /^rank 1 was lost: its connection closed/);
    await end(probes);
  }
});

test("group: a rank that is busy for less than the bound is not lost", async () => {
  const probes = await Probe.open(3, 6);
  for (const { tell } of [probes[0]!, probes[1]!].map((each) => ({ tell: each.tell.bind(each) })))
    tell("block", "2000");
  for (const each of probes) each.tell("close");
  for (const each of probes) each.tell("leave");
  const codes = await Promise.all(probes.map(({ exit }) => exit));
  assert.deepEqual(codes, Array(3).fill([0, null]));
});

test("group: connections alone do not keep a process alive", async () => {
  const probes = await Probe.open(2, 60);
  probes[1]!.tell("leave");
  assert.deepEqual(await probes[1]!.exit, [0, null]);
  assert.match((await probes[0]!.failure).message, /^rank 1 was lost/);
  await end(probes);
});

test("group: a process that waits in a call stays for it", async () => {
  const probes = await Probe.open(2, 60);
  probes[1]!.tell("barrier", "last");
  probes[1]!.tell("leave");
  const early = await Promise.race([
    probes[1]!.exit.then(() => "left"),
    new Promise((resolve) => setTimeout(() => resolve("waits"), 300)),
  ]);
  assert.equal(early, "waits");
  probes[0]!.tell("barrier", "last");
  assert.deepEqual(await probes[1]!.exit, [0, null]);
  await end(probes);
});
