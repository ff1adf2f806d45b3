import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { root } from "../support/paths.js";
import {
  gqaPairs,
  outputOf,
  temporaryFolder,
  trajectoryRecipe,
  weightBytes,
  withoutTimes,
} from "../train/support.js";
import { createNetwork } from "./netns.js";
import { freePort, noMpirun, type Started, start, torchrunVariables } from "./support.js";

// Whole runs of 4 ranks on two machines of 2, started in every way there is. Each gives the bits of the same ranks
// on one machine: how they reach each other changes nothing.

const network = createNetwork();
after(() => network.remove());
const skip = noMpirun ?? network.skip;

const RANKS = 4;
const cli = path.join(root, "dist", "cli.js");
const usual = { SIMPER_RUN_TOKEN: "a secret of the tests", OMP_NUM_THREADS: "1" };

/** The command line of a run. */
function words(outputDir: string, more: readonly string[] = []): string[] {
  const settings = [
    ...["--dataset_mixer", JSON.stringify({ [gqaPairs]: 1 }), "--max_steps", "4"],
    ...["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "3"],
    ...["--zero_stage", "3", "--output_dir", outputDir],
  ];
  return [
    process.execPath,
    cli,
    "train",
    "--device",
    "cpu",
    ...more,
    trajectoryRecipe,
    ...settings,
  ];
}

/** A command on one of the machines. */
function startOn(machine: 0 | 1, command: readonly string[], env: Record<string, string>): Started {
  return start([...network.machines[machine].inside, ...command], { env: { ...usual, ...env } });
}

const all = [0, 1, 2, 3] as const;
const machineOf = (rank: number) => (rank < 2 ? 0 : 1);

/** Starts a run that writes to a folder. */
const ways: Record<string, (outputDir: string, port: number, folder: string) => Started[]> = {
  "--nnodes": (outputDir, port) =>
    ([0, 1] as const).map((machine) => {
      const place = ["--nproc", "2", "--nnodes", "2", "--node_rank", String(machine)];
      const master = ["--master_addr", network.machines[0].address, "--master_port", String(port)];
      return startOn(machine, words(outputDir, [...place, ...master]), {});
    }),
  "torchrun's variables": (outputDir, port) =>
    all.map((rank) =>
      startOn(
        machineOf(rank),
        words(outputDir),
        torchrunVariables(rank, network.machines[0].address, port),
      ),
    ),
  mpirun: (outputDir, _port, folder) => {
    // In the place of ssh: what mpirun wants to run on machine 1 runs in its namespace.
    const agent = path.join(folder, "agent.sh");
    const quoted = network.machines[1].inside.map((word) => `'${word}'`).join(" ");
    writeFileSync(agent, `shift\nexec ${quoted} sh -c "$*"\n`);
    const [first, second] = network.machines;
    const hosts = ["-n", String(RANKS), "--host", `${first.address}:2,${second.address}:2`];
    const net = network.cidr;
    const mca = Object.entries({
      plm_rsh_agent: `sh ${agent}`,
      oob_tcp_if_include: net,
      btl_tcp_if_include: net,
    }).flatMap(([name, value]) => ["--mca", name, value]);
    const env = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
    return [startOn(0, ["mpirun", ...hosts, ...mca, ...words(outputDir)], env)];
  },
};

async function finish(runs: readonly Started[]): Promise<void> {
  const ends = await Promise.all(runs.map(({ ended }) => ended));
  assert.deepEqual(
    ends.map(({ code }) => code),
    runs.map(() => 0),
    runs.map((run, i) => `process ${i}: ${run.err()}`).join("\n"),
  );
}

test("machines: a run has the bits of one machine, however it is started", { skip }, async (t) => {
  const folder = temporaryFolder(t);
  const alone = path.join(folder, "one machine");
  await finish([start(words(alone, ["--nproc", String(RANKS)]), { env: usual })]);
  const expected = outputOf(alone).records;
  assert.equal(expected.length, 4);
  for (const [name, way] of Object.entries(ways)) {
    const outputDir = path.join(folder, name);
    await finish(way(outputDir, await freePort(), folder));
    assert.deepEqual(withoutTimes(outputOf(outputDir).records), withoutTimes(expected), name);
    assert.ok(weightBytes(outputDir).equals(weightBytes(alone)), `${name}: weights`);
  }
});

test("machines: torchrun's variables on one machine, and an error that all find", {
  skip: noMpirun,
}, async (t) => {
  const folder = temporaryFolder(t);
  const port = await freePort();
  const place = (rank: number) => torchrunVariables(rank, "127.0.0.1", port);
  const outputDir = path.join(folder, "out");
  await finish(all.map((rank) => start(words(outputDir), { env: { ...usual, ...place(rank) } })));
  assert.equal(outputOf(outputDir).records.length, 4);

  const wrong = words(path.join(folder, "none"), ["--model_name_or_path", folder]);
  const runs = all.map((rank) => start(wrong, { env: { ...usual, ...place(rank) } }));
  const codes = (await Promise.all(runs.map(({ ended }) => ended))).map(({ code }) => code);
  assert.deepEqual([...new Set(codes)], [codes[0]]);
  assert.notEqual(codes[0], 0);
  assert.match(runs[0]!.err(), /simper-native: .*config\.json/);
  for (const run of runs.slice(1))
    assert.match(
      run.err(),
      /^simper-native: the run ended with exit code \d; machine 0 tells why\n$/,
    );
});
