import { spawn } from "node:child_process";
import { CommError } from "../errors.js";
import type { Environment } from "../parallel/ranks.js";
import { openAgentDesk } from "./agent.js";
import { type Machines, machineError, meetMachines, type Offer } from "./machines.js";
import { startMpirun } from "./mpirun.js";
import { mpirunEnvironment } from "./openmpi.js";
import type { RankOutput } from "./output.js";
import { childrenOf, endSessions, send } from "./processes.js";
import { exitCodeOf, type RankEnd, type Running } from "./running.js";

/** A run on several machines, as one of their launchers sees it. */
export interface AcrossOptions {
  readonly machines: Machines;
  readonly offer: Omit<Offer, "address" | "network">;
  readonly timeoutSeconds: number;
  readonly env: Environment;
  readonly stdout: RankOutput;
  readonly stderr: RankOutput;
}

/** What machine 0 tells the others: the daemon that each runs for mpirun, by address; null when there is no run. */
type Daemons = Readonly<Record<string, string>> | null;

const GRACE_MS = 5000;
/** Open MPI's program whose children are the ranks of a machine. */
const DAEMON = "orted";

/**
 * Starts the ranks of several machines with one mpirun, which runs on machine 0. It starts a daemon on each of the
 * others by a program in the place of ssh; the launchers carry that command line instead, so no machine needs to let
 * another one log in. Launchers that share an address share a daemon, which the first of them starts.
 *
 * @throws CommError when the other launchers do not come; ConfigError when they were given another recipe
 */
export async function startAcross(options: AcrossOptions): Promise<Running> {
  const { machines, offer, timeoutSeconds } = options;
  const { group, offers } = await meetMachines(machines, offer, timeoutSeconds);
  const addresses = [...new Set(offers.map(({ address }) => address))];
  const lost = new Promise<never>((_, reject) => {
    const fail = (): void => reject(machineError(group.failure.reason));
    if (group.failure.aborted) fail();
    else group.failure.addEventListener("abort", fail, { once: true });
  });
  lost.catch(() => {}); // looked at where it matters
  return machines.index === 0 ? leads() : follows();

  async function leads(): Promise<Running> {
    const desk = await openAgentDesk(addresses.length - 1);
    let running: Running;
    try {
      running = startMpirun({
        machines: offers.map(({ address, nproc, command, cwd }) => {
          return { address, count: nproc, command, cwd };
        }),
        network: { agent: desk.agent, networks: offers.map(({ network }) => network) },
        ...{ env: options.env, stdout: options.stdout, stderr: options.stderr },
      });
    } catch (error) {
      desk.close();
      await group.fail(error);
      throw error;
    }
    const handOver = async (): Promise<void> => {
      // mpirun may fail before it asks for any daemon.
      const daemons: Daemons = await Promise.race([
        desk.commands,
        running.ended.then(
          () => null,
          () => null,
        ),
      ]);
      await group.broadcast("daemons", daemons);
    };
    const handedOver = handOver();
    handedOver.catch(() => {}); // the reason is that of `lost`
    const finish = async (): Promise<RankEnd> => {
      const end = await Promise.race([running.ended, lost]);
      await handedOver;
      await group.broadcast("end", end.exitCode);
      await group.close();
      return end;
    };
    return { ...running, ended: finish().catch(rethrow).finally(desk.close) };
  }

  async function follows(): Promise<Running> {
    const daemons = await group.broadcast<Daemons>("daemons", null).catch(rethrow);
    const { address } = offers[machines.index]!;
    const first = offers.findIndex((other) => other.address === address) === machines.index;
    const command = first ? daemons?.[address] : undefined;
    const daemon = command === undefined ? undefined : startDaemon(command, options);
    const pids = daemon?.pid === undefined ? [] : [daemon.pid];
    const finish = async (): Promise<RankEnd> => {
      const missing = daemon?.missing.then(async (error) => {
        await group.fail(error);
        throw error;
      });
      const over = group.broadcast("end", 0);
      over.catch(() => {}); // the reason is that of `lost`
      const exitCode = await Promise.race([over, lost, ...(missing ? [missing] : [])]);
      await group.close();
      await endSessions(pids, GRACE_MS);
      if (exitCode === 0) return { exitCode };
      return { exitCode, reason: `the run ended with exit code ${exitCode}; machine 0 tells why` };
    };
    return {
      pids,
      graceMs: GRACE_MS,
      ended: finish().catch(rethrow),
      drained: Promise.resolve(),
      stop: () => {
        for (const rank of childrenOf(pids, DAEMON)) send(rank, "SIGUSR2");
      },
    };
  }
}

/** Speaks of machines where a group speaks of ranks. */
function rethrow(error: unknown): never {
  throw machineError(error);
}

/** mpirun's daemon on this machine, the parent of its ranks. */
function startDaemon(
  command: string,
  { offer, env, stderr }: AcrossOptions,
): { pid: number | undefined; missing: Promise<CommError> } {
  const child = spawn("/bin/sh", ["-c", command], {
    cwd: offer.cwd,
    env: mpirunEnvironment(env),
    stdio: ["ignore", "ignore", "pipe"], // what ranks write goes to mpirun by other ways
    detached: true,
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const missing = new Promise<CommError>((resolve) => {
    child.once("error", (error) => resolve(cannot(error.message)));
    child.once("close", (code, signal) => {
      const exitCode = exitCodeOf(code, signal);
      // The shell's codes for a program that is not there; of anything else mpirun tells.
      if (exitCode === 126 || exitCode === 127) resolve(cannot(said.trim()));
      else if (said.trim() !== "") stderr.line(said.trim());
    });
  });
  const cannot = (why: string): CommError =>
    new CommError(`Open MPI's daemon cannot be started: ${why}`, {
      hint: "Install the same release of Open MPI on all machines: apt install openmpi-bin",
    });
  return { pid: child.pid, missing };
}
