import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { networkOf } from "#src/launch/machines.js";
import { createNetwork } from "./netns.js";
import {
  freePort,
  listens,
  livingIn,
  noMpirun,
  program,
  type Started,
  start,
  until,
} from "./support.js";

const dir = mkdtempSync(path.join(os.tmpdir(), "simper-machines-"));
const network = createNetwork();
after(() => {
  network.remove();
  rmSync(dir, { recursive: true });
});
const skip = noMpirun ?? network.skip;

const token = "a secret of the tests";

/** How one of two launchers is started. */
interface Options {
  readonly nproc?: number;
  readonly token?: string;
  readonly recipe?: string;
  readonly timeout?: number;
  readonly log?: string;
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  /** Words before the command; default: the namespace of that machine. */
  readonly inside?: readonly string[];
}

let port = 0;

/** The launcher of machine 0 or 1 with probes as ranks. */
function startOn(index: 0 | 1, behaviour: string, options: Options = {}): Started {
  const { nproc = 1, inside = network.machines[index].inside, log: file } = options;
  const address = options.inside === undefined ? network.machines[0].address : "127.0.0.1";
  const machines = { count: 2, index, address, port, token: options.token ?? token };
  const rank = [process.execPath, program("probe.mjs"), behaviour, ...(file ? [file] : [])];
  const words = [program("launcher.mjs"), "cpu", String(nproc), ...rank];
  return start([...inside, process.execPath, ...words], {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: {
      TEST_MACHINES: JSON.stringify(machines),
      TEST_RECIPE: options.recipe ?? "same",
      TEST_TIMEOUT: String(options.timeout ?? 60),
      SIMPER_RANK_TIMEOUT: "10",
      ...options.env,
    },
  });
}

async function both(runs: readonly [Started, Started]) {
  const [first, second] = await Promise.all(runs.map((run) => run.ended));
  return [first!.code, second!.code];
}

let logs = 0;
function log(): string {
  const file = path.join(dir, `pids-${logs++}`);
  writeFileSync(file, "");
  return file;
}

test("machines: one mpirun runs on two machines without ssh", { skip }, async () => {
  port = await freePort();
  const other = path.join(dir, "a folder of machine 1");
  mkdirSync(other);
  const env = { PATH: pathWith("mpirun", "orted") };
  const runs = [
    startOn(0, "hello", { nproc: 2, env, cwd: dir }),
    startOn(1, "hello", { nproc: 3, env, cwd: other }),
  ] as const;
  assert.deepEqual(await both(runs), [0, 0], runs[0].err() + runs[1].err());
  // Ranks of machine 0 come first, and each machine's run in the folder of its launcher.
  const places = [0, 1, 2, 3, 4].map((rank) => {
    return `${rank === 0 ? "" : `[rank ${rank}] `}out of ${rank} of 5 in ${rank < 2 ? dir : other}`;
  });
  assert.deepEqual(runs[0].out().trimEnd().split("\n").sort(), places.sort());
  assert.match(runs[0].err(), /^\[rank 4\] err of 4: prices in €, half a line$/m);
  assert.deepEqual([runs[1].out(), runs[1].err()], ["", ""]);
});

/** A PATH with what a test machine needs to start, and these programs: no ssh, and no more of Open MPI. */
function pathWith(...programs: readonly string[]): string {
  const folder = mkdtempSync(path.join(dir, "bin-"));
  for (const name of ["sh", "unshare", "hostname", ...programs])
    symlinkSync(`/usr/bin/${name}`, path.join(folder, name));
  return `${folder}:/usr/sbin`;
}

test("machines: an error is told on machine 0, and the others end with its code", {
  skip,
}, async () => {
  port = await freePort();
  const runs = [startOn(0, "mistake"), startOn(1, "mistake")] as const;
  assert.deepEqual(await both(runs), [2, 2]);
  assert.match(
    runs[0].err(),
    /^(\[rank 1\] )?simper-native: recipe\.yaml:3:1 {2}the data is not there\n/,
  );
  assert.equal(runs[0].err().match(/the data is not there/g)?.length, 1);
  assert.equal(
    runs[1].err(),
    "simper-native: the run ended with exit code 2; machine 0 tells why\n",
  );
});

for (const index of [0, 1] as const) {
  test(`machines: Ctrl-C on machine ${index} asks the ranks once`, { skip }, async () => {
    port = await freePort();
    const pids = log();
    // A request on machine 1 reaches the ranks there; ranks agree on when to stop.
    const runs = [
      startOn(0, index === 0 ? "stops" : "stopsTogether", { log: pids }),
      startOn(1, index === 0 ? "stops" : "stopsTogether", { log: pids }),
    ] as const;
    await until("both ranks listen", () => livingIn(pids).length === 2);
    runs[index].child.kill("SIGINT");
    assert.deepEqual(await both(runs), [130, 130], runs[0].err() + runs[1].err());
    assert.match(runs[0].err(), /saved/);
    assert.deepEqual(livingIn(pids), []);
  });

  test(`machines: nothing is left when the launcher of machine ${index} is killed`, {
    skip,
  }, async () => {
    port = await freePort();
    const pids = log();
    const runs = [
      startOn(0, "stubborn", { log: pids, nproc: 2 }),
      startOn(1, "stubborn", { log: pids, nproc: 2 }),
    ] as const;
    await until("all ranks run", () => livingIn(pids).length === 4);
    runs[index].child.kill("SIGKILL");
    const survivor = runs[1 - index]!;
    assert.equal((await survivor.ended).code, 1);
    assert.match(survivor.err(), new RegExp(`simper-native: machine ${index} was lost`));
    await until("all ranks have ended", () => livingIn(pids).length === 0);
  });
}

test("machines: a machine without Open MPI is named", { skip }, async () => {
  port = await freePort();
  const runs = [startOn(0, "hello"), startOn(1, "hello", { env: { PATH: pathWith() } })] as const;
  assert.deepEqual(await both(runs), [1, 1]);
  for (const run of runs)
    assert.match(
      run.err(),
      /^simper-native: (machine 1: )?Open MPI's daemon cannot be started: .*orted: not found\n {2}Install the same release of Open MPI on all machines/,
    );
});

test("machines: without mpirun on machine 0 both end, and each says why", { skip }, async () => {
  port = await freePort();
  const runs = [startOn(0, "hello", { env: { PATH: pathWith() } }), startOn(1, "hello")] as const;
  assert.deepEqual(await both(runs), [1, 1]);
  for (const run of runs) assert.match(run.err(), /starts its processes with mpirun of Open MPI/);
});

// What follows needs no second machine: the launchers part before anything is started.
const here = { inside: [] } as const;

test("machines: another secret and another recipe are refused", async () => {
  port = await freePort();
  const strangers = [
    startOn(0, "hello", { ...here, timeout: 8 }),
    startOn(1, "hello", { ...here, token: "another secret of ours" }),
  ] as const;
  assert.deepEqual(await both(strangers), [1, 1]);
  assert.match(
    strangers[1].err(),
    /machine 1 finds another program in place of machine 0 at 127\.0\.0\.1:\d+: it has another SIMPER_RUN_TOKEN/,
  );
  assert.match(strangers[0].err(), /SIMPER_RUN_TOKEN/);

  port = await freePort();
  const others = [
    startOn(0, "hello", here),
    startOn(1, "hello", { ...here, recipe: "other" }),
  ] as const;
  assert.deepEqual(await both(others), [2, 2]);
  for (const run of others)
    assert.match(
      run.err(),
      /^simper-native: machines 0 and 1 have different recipes or overrides\n {2}Start all machines with the same command/,
    );
});

test("machines: a machine that does not come is missed within the bound", async () => {
  port = await freePort();
  const alone = startOn(0, "hello", { ...here, timeout: 2 });
  assert.equal((await alone.ended).code, 1);
  assert.match(alone.err(), /machine 1/);
  const lost = startOn(1, "hello", { ...here, timeout: 2 });
  assert.equal((await lost.ended).code, 1);
  assert.match(
    lost.err(),
    /simper-native: machine 1 found no machine 0 within 2 s; 127\.0\.0\.1:\d+: connect ECONNREFUSED/,
  );
});

test("machines: Ctrl-C ends a launcher that waits for the others", async () => {
  port = await freePort();
  const alone = startOn(0, "hello", here);
  await listens(port); // for machine 1
  alone.child.kill("SIGINT");
  assert.equal((await alone.ended).code, 130);
});

test("machines: the network of an address", () => {
  assert.equal(networkOf("10.77.3.129", "255.255.255.0"), "10.77.3.0/24");
  assert.equal(networkOf("172.16.9.200", "255.255.240.0"), "172.16.0.0/20");
  assert.equal(networkOf("127.0.0.1", "255.0.0.0"), "127.0.0.0/8");
});
