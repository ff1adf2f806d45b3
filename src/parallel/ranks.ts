import { ConfigError } from "../errors.js";

/** Who started the processes of a run; `none`: nobody, it is one process. */
export type Launcher = "none" | "openmpi" | "slurm" | "torchrun";

/** Where rank 0 listens for the others. */
export interface Address {
  /** Name or number of a host. */
  readonly address: string;
  readonly port: number;
}

/** The place of this process in a run of `size` processes. */
export interface Ranks {
  readonly launcher: Launcher;
  /** 0 … size − 1. */
  readonly rank: number;
  readonly size: number;
  /** Rank among the processes on this machine: the GPU it takes. */
  readonly localRank: number;
  readonly localSize: number;
  /** How many machines the run has, where the launcher says so. */
  readonly nodes?: number;
  /** Where the launcher says the processes meet. */
  readonly master?: Address;
  /** Secret that all processes of the run, and nobody else, have. */
  readonly token?: string;
}

/** Variables of a process, such as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** More processes than any run has: a larger number is a mistake. */
const MAX_RANKS = 1 << 20;

/**
 * What the launcher says this process is. mpirun comes before torchrun's variables and both before Slurm's: mpirun
 * in a job of Slurm and our launcher on each of its machines start processes that have seen Slurm's, too.
 *
 * @param env variables of the process, `process.env`
 * @throws ConfigError naming the variables when one is missing, is no number, or contradicts another
 * @example
 * const { rank, size } = ranksFromEnvironment(process.env); // 0 and 1 when nobody launched it
 */
export function ranksFromEnvironment(env: Environment): Ranks {
  const found = fromOpenMpi(env) ?? fromTorchrun(env) ?? fromSlurm(env);
  if (found === undefined)
    return { launcher: "none", rank: 0, size: 1, localRank: 0, localSize: 1 };
  const master = masterOf(env) ?? found.master;
  const token = tokenOf(env);
  return { ...found, ...(master && { master }), ...(token !== undefined && { token }) };
}

/** Where the processes of a run meet, and their secret. @throws ConfigError when the environment does not say. */
export function meetingOf({ rank, size, master, token }: Ranks): Address & { token: string } {
  if (master !== undefined && token !== undefined) return { ...master, token };
  const missing = master === undefined ? "MASTER_ADDR and MASTER_PORT" : "SIMPER_RUN_TOKEN";
  throw new ConfigError(`rank ${rank} of ${size}: ${missing} not set`, {
    hint: "every process needs the same MASTER_ADDR, MASTER_PORT and SIMPER_RUN_TOKEN=$(openssl rand -hex 16); --nproc sets them",
  });
}

/** Seconds without a sign of life after which a process counts as hung, unless SIMPER_RANK_TIMEOUT says otherwise. */
const RANK_TIMEOUT = 60;

/** SIMPER_RANK_TIMEOUT, in seconds. @throws ConfigError when it is no number above 0 */
export function rankTimeout(env: Environment): number {
  const text = env.SIMPER_RANK_TIMEOUT;
  if (text === undefined || text === "") return RANK_TIMEOUT;
  const seconds = Number(text);
  if (seconds > 0 && Number.isFinite(seconds)) return seconds;
  throw new ConfigError(
    `SIMPER_RANK_TIMEOUT is ${JSON.stringify(text)}: expected a number of seconds above 0`,
  );
}

/** Set by mpirun for each process, before MPI is initialised. */
function fromOpenMpi(env: Environment): Ranks | undefined {
  const names = {
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    localRank: "OMPI_COMM_WORLD_LOCAL_RANK",
    localSize: "OMPI_COMM_WORLD_LOCAL_SIZE",
  };
  if (!anyOf(env, [names.rank, names.size])) return undefined;
  // Torchrun's may be set beside it, by hand or by an operator of Kubernetes: then they have to agree.
  if (anyOf(env, ["RANK"]) && anyOf(env, ["WORLD_SIZE"])) {
    agree(env, names.rank, "RANK");
    agree(env, names.size, "WORLD_SIZE");
  }
  return placeOf("openmpi", env, names);
}

/** Set by torchrun, by operators of Kubernetes, by our own launcher, or by hand. */
function fromTorchrun(env: Environment): Ranks | undefined {
  if (!anyOf(env, ["RANK", "WORLD_SIZE"])) return undefined;
  return placeOf("torchrun", env, {
    rank: "RANK",
    size: "WORLD_SIZE",
    localRank: "LOCAL_RANK",
    localSize: "LOCAL_WORLD_SIZE",
  });
}

// Slurm numbers the steps of a job from 0 and gives its own ones, such as the batch script, the highest numbers.
const SLURM_OWN_STEPS = 0xfffffff0;

/** Set by srun for each task. The batch script and an interactive shell have some of them and are no task. */
function fromSlurm(env: Environment): Ranks | undefined {
  if (!anyOf(env, ["SLURM_PROCID"]) || !anyOf(env, ["SLURM_STEP_NUM_TASKS"])) return undefined;
  const step = env.SLURM_STEP_ID;
  if (step !== undefined && /^\d+$/.test(step) && Number(step) >= SLURM_OWN_STEPS) return undefined;
  const size = count(env, "SLURM_STEP_NUM_TASKS");
  const rank = below(env, "SLURM_PROCID", size, "SLURM_STEP_NUM_TASKS");
  const localSize = slurmLocalSize(env, size);
  const localRank = below(env, "SLURM_LOCALID", localSize, "tasks of this machine");
  const nodes = anyOf(env, ["SLURM_STEP_NUM_NODES"])
    ? { nodes: count(env, "SLURM_STEP_NUM_NODES") }
    : {};
  const list = env.SLURM_STEP_NODELIST ?? env.SLURM_NODELIST ?? env.SLURM_JOB_NODELIST;
  const host = list === undefined ? undefined : firstHost(list);
  if (list !== undefined && host === undefined)
    throw wrong("SLURM_STEP_NODELIST", list, "a list of hosts such as node[01-04]");
  const port = slurmPort(env);
  const master =
    host !== undefined && port !== undefined ? { master: { address: host, port } } : {};
  return { launcher: "slurm", rank, size, localRank, localSize, ...nodes, ...master };
}

/** `4(x2),3` says that two machines have 4 tasks and a third has 3; SLURM_NODEID says which this is. */
function slurmLocalSize(env: Environment, size: number): number {
  const name = "SLURM_STEP_TASKS_PER_NODE";
  const text = env[name];
  if (text === undefined || text === "") {
    if (env.SLURM_STEP_NUM_NODES === undefined || env.SLURM_STEP_NUM_NODES === "1") return size;
    throw missing(name, "SLURM_STEP_NUM_TASKS");
  }
  const perNode: number[] = [];
  for (const part of text.split(",")) {
    const [, tasks, times = "1"] = /^(\d+)(?:\(x(\d+)\))?$/.exec(part) ?? [];
    if (tasks === undefined || Number(times) > MAX_RANKS)
      throw wrong(name, text, "numbers of tasks such as 4(x2),3");
    for (let i = 0; i < Number(times); i++) perNode.push(Number(tasks));
  }
  const total = perNode.reduce((sum, tasks) => sum + tasks, 0);
  if (total !== size)
    throw wrong(name, text, `${size} tasks together, as SLURM_STEP_NUM_TASKS says`);
  if (perNode.length === 1) return size;
  return perNode[below(env, "SLURM_NODEID", perNode.length, name)]!;
}

/** First host of a list such as `gpu[03-05,09],login`; undefined where it is none. */
function firstHost(list: string): string | undefined {
  const match = /^([\w.-]+)(?:\[([\w-]+)(?:,[\w,-]+)?\]([\w.-]*))?(?:,|$)/.exec(list);
  if (match === null) return undefined;
  const [, head = "", numbers, tail = ""] = match;
  return numbers === undefined ? head : `${head}${numbers.split("-")[0]}${tail}`;
}

/** A port that all tasks of a step compute alike and other steps of the machine do not. */
function slurmPort(env: Environment): number | undefined {
  const job = Number(env.SLURM_JOB_ID ?? env.SLURM_JOBID);
  const step = Number(env.SLURM_STEP_ID ?? 0);
  if (!Number.isSafeInteger(job) || !Number.isSafeInteger(step)) return undefined;
  return 16384 + ((job * 31 + step) % 16384); // below the range that kernels hand out by themselves
}

interface Names {
  readonly rank: string;
  readonly size: string;
  readonly localRank: string;
  readonly localSize: string;
}

function placeOf(launcher: Launcher, env: Environment, names: Names): Ranks {
  const size = count(env, names.size, names.rank);
  const rank = below(env, names.rank, size, names.size);
  if (!anyOf(env, [names.localRank, names.localSize])) {
    // One process on each machine, as operators of Kubernetes start them.
    return { launcher, rank, size, localRank: 0, localSize: 1 };
  }
  const localSize = count(env, names.localSize, names.localRank);
  const localRank = below(env, names.localRank, localSize, names.localSize);
  if (localSize > size)
    throw wrong(names.localSize, env[names.localSize]!, `at most ${names.size} = ${size}`);
  if (localRank > rank)
    throw wrong(names.localRank, env[names.localRank]!, `at most ${names.rank} = ${rank}`);
  return { launcher, rank, size, localRank, localSize };
}

function masterOf(env: Environment): Address | undefined {
  const { MASTER_ADDR: address, MASTER_PORT: port } = env;
  if (!address && !port) return undefined;
  if (!address) throw missing("MASTER_ADDR", "MASTER_PORT");
  if (!port) throw missing("MASTER_PORT", "MASTER_ADDR");
  if (!/^[\w.:%-]+$/.test(address))
    throw wrong("MASTER_ADDR", address, "name or address of a host");
  const number = whole(port);
  if (number === undefined || number < 1 || number > 65535)
    throw wrong("MASTER_PORT", port, "a port, 1 to 65535");
  // Torchrun's agent listens there itself.
  const taken = /^(true|1)$/i.test(env.TORCHELASTIC_USE_AGENT_STORE ?? "");
  return { address, port: taken ? number + 1 : number };
}

/** Characters of a run's secret, at least. */
export const MIN_TOKEN_LENGTH = 16;

function tokenOf(env: Environment): string | undefined {
  const token = env.SIMPER_RUN_TOKEN;
  if (token === undefined || token === "") return undefined;
  if (token.length < MIN_TOKEN_LENGTH) {
    // The token itself is a secret, so the message does not show it.
    throw new ConfigError(
      `SIMPER_RUN_TOKEN has ${token.length} characters: expected at least ${MIN_TOKEN_LENGTH}`,
      { hint: "make one for each run: SIMPER_RUN_TOKEN=$(openssl rand -hex 16)" },
    );
  }
  return token;
}

/** Whether one of the variables is there; an empty one counts as absent. */
function anyOf(env: Environment, names: readonly string[]): boolean {
  return names.some((name) => env[name] !== undefined && env[name] !== "");
}

function whole(text: string): number | undefined {
  return /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

/** A number of processes or machines. */
function count(env: Environment, name: string, beside?: string): number {
  const text = env[name];
  if (text === undefined || text === "") throw missing(name, beside ?? "SLURM_PROCID");
  const value = whole(text);
  if (value === undefined || value < 1 || value > MAX_RANKS)
    throw wrong(name, text, `a whole number from 1 to ${MAX_RANKS}`);
  return value;
}

/** A number from 0 to what another variable allows. */
function below(env: Environment, name: string, limit: number, limitName: string): number {
  const text = env[name];
  if (text === undefined || text === "") throw missing(name, limitName);
  const value = whole(text);
  if (value === undefined || value >= limit)
    throw wrong(name, text, `a whole number below ${limitName} = ${limit}`);
  return value;
}

function agree(env: Environment, ours: string, theirs: string): void {
  if (env[ours] === env[theirs]) return;
  throw new ConfigError(
    `${ours} is ${env[ours]} and ${theirs} is ${env[theirs]}: expected the same number from both`,
    { hint: `unset ${theirs}, or start the processes with one launcher only` },
  );
}

function missing(name: string, beside: string): ConfigError {
  return new ConfigError(`${beside} is set and ${name} is not: expected both or neither`, {
    hint: "a launcher sets them all: simper-native train --nproc, mpirun, srun or torchrun",
  });
}

function wrong(name: string, text: string, expected: string): ConfigError {
  return new ConfigError(`${name} is ${JSON.stringify(text)}: expected ${expected}`, {
    hint: "it is set by the launcher; a variable that is left over from another run has to be unset",
  });
}
