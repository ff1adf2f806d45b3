import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type LaunchFlags,
  launchRequest,
  torchrunRequest,
  withoutLaunchFlags,
} from "#src/launch/index.js";
import { withoutTorchrun } from "#src/launch/request.js";
import { ranksFromEnvironment } from "#src/parallel/ranks.js";

const token = "0123456789abcdef";

function request(flags: LaunchFlags, env: Record<string, string> = {}) {
  return launchRequest(flags, ranksFromEnvironment(env), env);
}

function refused(flags: LaunchFlags, env: Record<string, string> = {}): string {
  let text = "";
  assert.throws(
    () => request(flags, env),
    (error: { code: string; message: string; hint: string | undefined }) => {
      assert.equal(error.code, "ERR_SIMPER_CONFIG");
      text = [error.message, error.hint].join("\n");
      return true;
    },
  );
  return text;
}

test("launch: one process, or a rank that somebody launched, launches nothing", () => {
  assert.equal(request({}), undefined);
  assert.equal(request({ nproc: 1 }), undefined);
  assert.equal(request({ nnodes: 1, node_rank: 0 }), undefined);
  assert.equal(request({}, { RANK: "1", WORLD_SIZE: "2" }), undefined);
});

test("launch: what --nproc and the options of machines ask for", () => {
  assert.deepEqual(request({ nproc: 4 }), { nproc: 4 });
  const flags = { nnodes: 2, node_rank: 1, master_addr: "10.0.0.1" };
  assert.deepEqual(request({ ...flags, nproc: 4 }, { SIMPER_RUN_TOKEN: token }), {
    nproc: 4,
    machines: { count: 2, index: 1, address: "10.0.0.1", port: 29500, token },
  });
  const own = request({ ...flags, master_port: 4000 }, { SIMPER_RUN_TOKEN: token });
  assert.deepEqual([own?.nproc, own?.machines?.port], [1, 4000]);
});

test("launch: options that contradict each other or another launcher are refused", () => {
  const mpi = { OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "4" };
  assert.match(
    refused({ nproc: 4 }, mpi),
    /^--nproc asks for processes, and this one is rank 1 of 4 already \(started by mpirun: OMPI_COMM_WORLD_RANK is set\)\nLet one launcher start them/,
  );
  assert.match(
    refused({ nnodes: 2 }, { RANK: "0", WORLD_SIZE: "1" }),
    /rank 0 of 1 already \(RANK and WORLD_SIZE are set\)/,
  );
  assert.match(
    refused({ nproc: 2, master_addr: "a" }),
    /^--master_addr is for several machines: expected --nnodes as well/,
  );
  assert.match(refused({ node_rank: 1 }), /^--node_rank is for several machines/);
  assert.match(
    refused({ nnodes: 2, master_addr: "a" }),
    /^--nnodes 2 needs --node_rank, too\nOn each machine: --nnodes 2 --node_rank 0/,
  );
  assert.match(refused({ nnodes: 2, node_rank: 0 }), /^--nnodes 2 needs --master_addr, too/);
  assert.match(
    refused({ nnodes: 2, node_rank: 2, master_addr: "a" }),
    /^--node_rank 2: expected a number below --nnodes 2/,
  );
});

test("launch: several machines need a secret", () => {
  const flags = { nnodes: 2, node_rank: 0, master_addr: "a" };
  assert.match(
    refused(flags),
    /^several machines need a secret of at least 16 characters in SIMPER_RUN_TOKEN: it is not set\nMake one for each run with `openssl rand -hex 16`/,
  );
  const short = refused(flags, { SIMPER_RUN_TOKEN: "letmein" });
  assert.match(short, /SIMPER_RUN_TOKEN: it has 7 characters/);
  assert.doesNotMatch(short, /letmein/);
});

test("launch: torchrun's processes on CPUs become launchers of one rank each", () => {
  const place = { RANK: "1", WORLD_SIZE: "2" };
  const meeting = { MASTER_ADDR: "10.0.0.1", MASTER_PORT: "4000", SIMPER_RUN_TOKEN: token };
  const of = (env: Record<string, string>) => torchrunRequest(ranksFromEnvironment(env));
  assert.deepEqual(of({ ...place, ...meeting }), {
    nproc: 1,
    machines: { count: 2, index: 1, address: "10.0.0.1", port: 4000, token },
  });
  assert.equal(of({}), undefined);
  assert.equal(of({ RANK: "0", WORLD_SIZE: "1" }), undefined);
  assert.equal(of({ OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "4" }), undefined);
  const { SIMPER_RUN_TOKEN: _, ...withoutToken } = meeting;
  assert.throws(() => of(place), /^ConfigError: rank 1 of 2: MASTER_ADDR and MASTER_PORT not set$/);
  assert.throws(
    () => of({ ...place, ...withoutToken }),
    /^ConfigError: rank 1 of 2: SIMPER_RUN_TOKEN not set$/,
  );
});

test("launch: ranks do not inherit torchrun's variables, and keep all others", () => {
  const env = { RANK: "1", LOCAL_WORLD_SIZE: "2", MASTER_ADDR: "a", TORCHELASTIC_RUN_ID: "x" };
  const kept = { LOCAL_DATA: "/data", RANKS: "3", PATH: "/bin" };
  assert.deepEqual(withoutTorchrun({ ...env, ...kept }), kept);
});

test("launch: a rank's command line is the user's without the options that ask for processes", () => {
  assert.deepEqual(
    withoutLaunchFlags([
      ...["train", "--nproc", "4", "recipe.yaml", "--nnodes=2", "--node_rank", "1"],
      ...["--master_addr", "a", "--master_port=9", "--max_steps", "3", "--nprocs", "5"],
    ]),
    ["train", "recipe.yaml", "--max_steps", "3", "--nprocs", "5"],
  );
});
