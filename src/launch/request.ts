import { ConfigError } from "../errors.js";
import { type Environment, MIN_TOKEN_LENGTH, meetingOf, type Ranks } from "../parallel/ranks.js";

/** The options of `train` that ask for processes, as they stand on the command line. */
export interface LaunchFlags {
  readonly nproc?: number;
  readonly nnodes?: number;
  readonly node_rank?: number;
  readonly master_addr?: string;
  readonly master_port?: number;
}

/** The processes that a launcher should start. */
export interface LaunchRequest {
  /** Processes on this machine. */
  readonly nproc: number;
  /** Several machines, and which this one is. */
  readonly machines?: {
    readonly count: number;
    readonly index: number;
    /** Where machine 0 listens. */
    readonly address: string;
    readonly port: number;
    /** Secret that all machines were given. */
    readonly token: string;
  };
}

/** torchrun's own. */
const DEFAULT_PORT = 29500;

/**
 * What the command line asks for; undefined when this process runs the recipe itself: as the only one, or as a rank
 * that somebody has launched.
 *
 * @throws ConfigError for options that contradict each other or the launcher, and for machines without a secret
 */
export function launchRequest(
  flags: LaunchFlags,
  ranks: Ranks,
  env: Environment,
): LaunchRequest | undefined {
  const { nproc = 1, nnodes = 1 } = flags;
  const given = Object.entries(flags).filter(([, value]) => value !== undefined);
  if (ranks.launcher !== "none") {
    if (given.length === 0) return undefined;
    throw new ConfigError(
      `--${given[0]![0]} asks for processes, and this one is rank ${ranks.rank} of ${ranks.size} already ` +
        `(${LAUNCHERS[ranks.launcher]})`,
      { hint: "Let one launcher start them: leave the option out, or unset the variables." },
    );
  }
  if (nnodes === 1) {
    const stray = given.find(
      ([name, value]) =>
        name !== "nproc" && name !== "nnodes" && !(name === "node_rank" && value === 0),
    );
    if (stray !== undefined)
      throw new ConfigError(`--${stray[0]} is for several machines: expected --nnodes as well`);
    return nproc === 1 ? undefined : { nproc };
  }
  const { node_rank: index, master_addr: address, master_port: port = DEFAULT_PORT } = flags;
  if (index === undefined || address === undefined) {
    const name = index === undefined ? "--node_rank" : "--master_addr";
    throw new ConfigError(`--nnodes ${nnodes} needs ${name}, too`, {
      hint:
        "On each machine: --nnodes 2 --node_rank 0 (then 1, …) --master_addr <address of machine 0> " +
        "[--master_port 29500]",
    });
  }
  if (index >= nnodes)
    throw new ConfigError(`--node_rank ${index}: expected a number below --nnodes ${nnodes}`);
  // Read in ranksFromEnvironment only once somebody has launched this process.
  const token = env.SIMPER_RUN_TOKEN ?? "";
  if (token.length < MIN_TOKEN_LENGTH) {
    const received = token === "" ? "it is not set" : `it has ${token.length} characters`;
    throw new ConfigError(
      `several machines need a secret of at least ${MIN_TOKEN_LENGTH} characters in SIMPER_RUN_TOKEN: ${received}`,
      {
        hint: "Make one for each run with `openssl rand -hex 16` and set it on all machines alike.",
      },
    );
  }
  return { nproc, machines: { count: nnodes, index, address, port, token } };
}

/**
 * What processes with torchrun's variables do where they compute on CPUs: MPI has to start its ranks itself, so each
 * becomes the launcher of the one that it would have been.
 *
 * @returns undefined for processes of other launchers
 * @throws ConfigError where the variables do not say how they meet
 */
export function torchrunRequest(ranks: Ranks): LaunchRequest | undefined {
  const { launcher, rank, size } = ranks;
  if (launcher !== "torchrun" || size === 1) return undefined;
  return { nproc: 1, machines: { count: size, index: rank, ...meetingOf(ranks) } };
}

const TORCHRUN =
  /^(((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*)$/;

/** An environment without torchrun's variables: those of a launcher are not those of the ranks that it starts. */
export function withoutTorchrun(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !TORCHRUN.test(name)));
}

const LAUNCHERS: Readonly<Record<Ranks["launcher"], string>> = {
  none: "",
  openmpi: "started by mpirun: OMPI_COMM_WORLD_RANK is set",
  slurm: "started by srun: SLURM_PROCID is set",
  torchrun: "RANK and WORLD_SIZE are set",
};

const VALUE_FLAGS = ["--nproc", "--nnodes", "--node_rank", "--master_addr", "--master_port"];

/** The words of a command line without the options that ask for processes: what a rank is started with. */
export function withoutLaunchFlags(words: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (VALUE_FLAGS.includes(word)) i++;
    else if (!VALUE_FLAGS.some((flag) => word.startsWith(`${flag}=`))) kept.push(word);
  }
  return kept;
}
