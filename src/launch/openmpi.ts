import { accessSync, constants } from "node:fs";
import path from "node:path";
import { CommError } from "../errors.js";
import type { Environment } from "../parallel/ranks.js";

/** The ranks of one machine, as mpirun starts them. */
export interface MachineRanks {
  /** Address under which mpirun knows the machine; its own is `localhost` where there is no other. */
  readonly address: string;
  readonly count: number;
  /** Program and arguments of a rank. */
  readonly command: readonly string[];
  /** Folder in which it runs. */
  readonly cwd: string;
}

/** How mpirun reaches other machines. */
export interface MachineNetwork {
  /** Program that is called as `ssh` would be: `agent <address> <command line>`. */
  readonly agent: string;
  /** Networks in CIDR form that mpirun and MPI use over TCP; the others are left alone. */
  readonly networks: readonly string[];
}

/**
 * Path of mpirun.
 * @throws CommError naming the packages when there is none
 */
export function findMpirun(env: Environment): string {
  for (const folder of (env.PATH ?? "").split(path.delimiter).filter((part) => part !== "")) {
    const file = path.join(folder, "mpirun");
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // the next folder of PATH
    }
  }
  throw new CommError(
    "--nproc on a CPU starts its processes with mpirun of Open MPI, which is not in PATH",
    { hint: "Install it: apt install openmpi-bin libopenmpi-dev; then: simper-native build" },
  );
}

/**
 * Arguments of mpirun. Threads are bound to nothing, because ranks share the cores of a machine by their number of
 * threads; a rank is started whether or not a core is left for it.
 *
 * @param machines machine 0, on which mpirun runs, first; ranks are numbered in this order
 * @param network how to reach the others; without one nothing but this machine is used, and no ssh is needed
 */
export function mpirunArguments(
  machines: readonly MachineRanks[],
  network: MachineNetwork | undefined,
  env: Environment,
): string[] {
  const shared = [
    "--tag-output",
    ...["--oversubscribe", "--bind-to", "none"],
    // The machines are those named here, whatever a batch system has allotted.
    ...["--mca", "ras", "^slurm,tm,gridengine,lsf,loadleveler"],
  ];
  if (network === undefined) shared.push("--mca", "plm", "isolated");
  else {
    shared.push("--leave-session-attached");
    shared.push(...["--mca", "plm", "rsh", "--mca", "plm_rsh_agent", network.agent]);
    shared.push(...["--mca", "plm_rsh_no_tree_spawn", "1"]);
    for (const name of ["oob_tcp_if_include", "btl_tcp_if_include"]) {
      const exclude = name.replace("include", "exclude"); // naming both is an error of Open MPI
      if (env[`OMPI_MCA_${name}`] || env[`OMPI_MCA_${exclude}`]) continue;
      shared.push("--mca", name, [...new Set(network.networks)].join(","));
    }
  }
  const programs = machines.map(({ address, count, command, cwd }) => [
    ...["-n", String(count), "--host", `${address}:${count}`, "-wdir", cwd],
    ...command,
  ]);
  return [...shared, ...programs.flatMap((words, i) => (i === 0 ? words : [":", ...words]))];
}

/** What mpirun needs in its environment. Root has to say twice that it means it. */
export function mpirunEnvironment(env: Environment): Record<string, string> {
  const isRoot = process.getuid?.() === 0;
  return {
    ...(env as Record<string, string>),
    ...(isRoot && { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" }),
  };
}

/** The rank that ended first, where mpirun says so in one of its messages. */
export function firstFailure(
  message: string,
): { rank: number; machine?: string; signal?: number; code?: number } | undefined {
  const signal = /process rank (\d+) with PID \d+ on node (\S+) exited on\s+signal (\d+)/.exec(
    message,
  );
  if (signal !== null)
    return { rank: Number(signal[1]), machine: signal[2]!, signal: Number(signal[3]) };
  const code = /Process name: \[\[\d+,\d+\],(\d+)\]\s+Exit code:\s+(\d+)/.exec(message);
  return code === null ? undefined : { rank: Number(code[1]), code: Number(code[2]) };
}
