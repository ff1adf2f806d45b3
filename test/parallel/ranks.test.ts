import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigError } from "#src/errors.js";
import { type Environment, ranksFromEnvironment, rankTimeout } from "#src/parallel/ranks.js";

const openMpi = {
  OMPI_COMM_WORLD_RANK: "5",
  OMPI_COMM_WORLD_SIZE: "8",
  OMPI_COMM_WORLD_LOCAL_RANK: "1",
  OMPI_COMM_WORLD_LOCAL_SIZE: "4",
};
const torchrun = {
  RANK: "5",
  WORLD_SIZE: "8",
  LOCAL_RANK: "1",
  LOCAL_WORLD_SIZE: "4",
  MASTER_ADDR: "10.0.0.1",
  MASTER_PORT: "29500",
};
const slurm = {
  SLURM_JOB_ID: "4711",
  SLURM_STEP_ID: "0",
  SLURM_PROCID: "6",
  SLURM_LOCALID: "2",
  SLURM_NODEID: "1",
  SLURM_STEP_NUM_TASKS: "11",
  SLURM_STEP_NUM_NODES: "3",
  SLURM_STEP_TASKS_PER_NODE: "4(x2),3",
  SLURM_STEP_NODELIST: "gpu[03-05]",
};

test("ranks: a process that nobody launched is a run of one", () => {
  const alone = { launcher: "none", rank: 0, size: 1, localRank: 0, localSize: 1 };
  assert.deepEqual(ranksFromEnvironment({}), alone);
  assert.deepEqual(ranksFromEnvironment({ PATH: "/bin", RANK: "" }), alone);
});

test("ranks: each launcher's variables say the same place", () => {
  const place = { rank: 5, size: 8, localRank: 1, localSize: 4 };
  assert.deepEqual(ranksFromEnvironment(openMpi), { launcher: "openmpi", ...place });
  const master = { address: "10.0.0.1", port: 29500 };
  assert.deepEqual(ranksFromEnvironment(torchrun), { launcher: "torchrun", ...place, master });
  assert.deepEqual(ranksFromEnvironment(slurm), {
    launcher: "slurm",
    rank: 6,
    size: 11,
    localRank: 2,
    localSize: 4,
    nodes: 3,
    master: { address: "gpu03", port: 16384 + ((4711 * 31) % 16384) },
  });
});

test("ranks: the last machine of a Slurm step may have fewer tasks", () => {
  const last = { ...slurm, SLURM_PROCID: "10", SLURM_LOCALID: "2", SLURM_NODEID: "2" };
  assert.equal(ranksFromEnvironment(last).localSize, 3);
});

test("ranks: all tasks of a Slurm step meet at its first host", () => {
  const hosts = [
    ["node7", "node7"],
    ["node[01-03,07]", "node01"],
    ["gpu-a1,gpu-a2", "gpu-a1"],
    ["rack[2,4]-ib", "rack2-ib"],
  ] as const;
  for (const [list, host] of hosts) {
    const { master } = ranksFromEnvironment({ ...slurm, SLURM_STEP_NODELIST: list });
    assert.equal(master?.address, host, list);
  }
  const given = { MASTER_ADDR: "fe00::1", MASTER_PORT: "7000" };
  const { master } = ranksFromEnvironment({ ...slurm, ...given });
  assert.deepEqual(master, { address: "fe00::1", port: 7000 });
});

test("ranks: a batch script and an interactive shell of Slurm are one process", () => {
  for (const step of ["4294967291", "4294967290"]) {
    const { launcher, size } = ranksFromEnvironment({ ...slurm, SLURM_STEP_ID: step });
    assert.deepEqual([launcher, size], ["none", 1]);
  }
  const { SLURM_STEP_NUM_TASKS: _, ...batch } = slurm;
  assert.equal(ranksFromEnvironment({ ...batch, SLURM_NTASKS: "11" }).launcher, "none");
});

test("ranks: mpirun and torchrun's variables count where Slurm's are there, too", () => {
  assert.equal(ranksFromEnvironment({ ...slurm, ...openMpi }).launcher, "openmpi");
  assert.equal(ranksFromEnvironment({ ...slurm, ...torchrun }).rank, 5);
});

test("ranks: without local ranks each process has a machine of its own", () => {
  const { LOCAL_RANK: _a, LOCAL_WORLD_SIZE: _b, ...pod } = torchrun;
  const { localRank, localSize } = ranksFromEnvironment(pod);
  assert.deepEqual([localRank, localSize], [0, 1]);
});

test("ranks: torchrun's own store holds MASTER_PORT, so rank 0 takes the next", () => {
  const { master } = ranksFromEnvironment({ ...torchrun, TORCHELASTIC_USE_AGENT_STORE: "True" });
  assert.equal(master?.port, 29501);
});

test("ranks: the run's token is passed on", () => {
  const token = "0123456789abcdef";
  assert.equal(ranksFromEnvironment({ ...torchrun, SIMPER_RUN_TOKEN: token }).token, token);
});

const wrong: readonly { readonly env: Environment; readonly says: RegExp }[] = [
  { env: { ...torchrun, WORLD_SIZE: "" }, says: /^RANK is set and WORLD_SIZE is not/ },
  { env: { ...torchrun, RANK: undefined }, says: /^WORLD_SIZE is set and RANK is not/ },
  {
    env: { ...torchrun, RANK: "8" },
    says: /^RANK is "8": expected a whole number below WORLD_SIZE = 8$/,
  },
  { env: { ...torchrun, RANK: "-1" }, says: /^RANK is "-1": expected a whole number/ },
  { env: { ...torchrun, RANK: "five" }, says: /^RANK is "five"/ },
  { env: { ...torchrun, WORLD_SIZE: "0" }, says: /^WORLD_SIZE is "0": expected .* from 1 / },
  { env: { ...torchrun, WORLD_SIZE: "9999999" }, says: /^WORLD_SIZE is "9999999"/ },
  { env: { ...torchrun, LOCAL_RANK: "4" }, says: /^LOCAL_RANK is "4": .* LOCAL_WORLD_SIZE = 4$/ },
  {
    env: { ...torchrun, LOCAL_WORLD_SIZE: "" },
    says: /^LOCAL_RANK is set and LOCAL_WORLD_SIZE is not/,
  },
  {
    env: { ...torchrun, LOCAL_WORLD_SIZE: "9" },
    says: /^LOCAL_WORLD_SIZE is "9": expected at most WORLD_SIZE = 8$/,
  },
  { env: { ...torchrun, RANK: "0" }, says: /^LOCAL_RANK is "1": expected at most RANK = 0$/ },
  { env: { ...torchrun, MASTER_PORT: "" }, says: /^MASTER_ADDR is set and MASTER_PORT is not/ },
  {
    env: { ...torchrun, MASTER_ADDR: undefined },
    says: /^MASTER_PORT is set and MASTER_ADDR is not/,
  },
  { env: { ...torchrun, MASTER_PORT: "70000" }, says: /^MASTER_PORT is "70000": expected a port/ },
  { env: { ...torchrun, MASTER_ADDR: "a b" }, says: /^MASTER_ADDR is "a b": expected/ },
  {
    env: { ...openMpi, RANK: "2", WORLD_SIZE: "8" },
    says: /^OMPI_COMM_WORLD_RANK is 5 and RANK is 2: expected the same/,
  },
  {
    env: { ...openMpi, RANK: "5", WORLD_SIZE: "4" },
    says: /^OMPI_COMM_WORLD_SIZE is 8 and WORLD_SIZE is 4/,
  },
  {
    env: { ...openMpi, OMPI_COMM_WORLD_SIZE: "1" },
    says: /^OMPI_COMM_WORLD_RANK is "5": .* OMPI_COMM_WORLD_SIZE = 1$/,
  },
  { env: { ...slurm, SLURM_LOCALID: "4" }, says: /^SLURM_LOCALID is "4": / },
  {
    env: { ...slurm, SLURM_STEP_TASKS_PER_NODE: "4(x3)" },
    says: /^SLURM_STEP_TASKS_PER_NODE is "4\(x3\)": expected 11 tasks together/,
  },
  {
    env: { ...slurm, SLURM_STEP_TASKS_PER_NODE: "four" },
    says: /^SLURM_STEP_TASKS_PER_NODE is "four": expected numbers/,
  },
  {
    env: { ...slurm, SLURM_STEP_NODELIST: "[" },
    says: /^SLURM_STEP_NODELIST is "\[": expected a list of hosts/,
  },
  {
    env: { ...torchrun, SIMPER_RUN_TOKEN: "secret" },
    says: /^SIMPER_RUN_TOKEN has 6 characters: expected at least 16$/,
  },
];

test("ranks: what is missing, no number or contradicts another is refused by name", () => {
  for (const { env, says } of wrong)
    assert.throws(
      () => ranksFromEnvironment(env),
      (error) => error instanceof ConfigError && says.test(error.message) && !!error.hint,
      String(says),
    );
});

test("ranks: a token that is refused is not shown", () => {
  assert.throws(
    () => ranksFromEnvironment({ ...torchrun, SIMPER_RUN_TOKEN: "secret" }),
    (error) => error instanceof ConfigError && !`${error.message}${error.hint}`.includes("secret"),
  );
});

test("ranks: a bound of silence that is no number is refused, by launchers and ranks alike", () => {
  assert.equal(rankTimeout({}), 60);
  assert.equal(rankTimeout({ SIMPER_RANK_TIMEOUT: "" }), 60);
  assert.equal(rankTimeout({ SIMPER_RANK_TIMEOUT: "2.5" }), 2.5);
  for (const text of ["soon", "0", "-3", "Infinity"])
    assert.throws(
      () => rankTimeout({ SIMPER_RANK_TIMEOUT: text }),
      new ConfigError(`SIMPER_RANK_TIMEOUT is "${text}": expected a number of seconds above 0`),
    );
});
