import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import type { Environment } from "../parallel/ranks.js";
import { startAcross } from "./across.js";
import { startForked } from "./fork.js";
import { type LaunchControl, launch, launchOutput, signalControl } from "./launch.js";
import { startMpirun } from "./mpirun.js";
import { type LaunchRequest, withoutTorchrun } from "./request.js";
import type { Running } from "./running.js";

export {
  type LaunchFlags,
  type LaunchRequest,
  launchRequest,
  torchrunRequest,
  withoutLaunchFlags,
} from "./request.js";

/** Processes of a run, and what is run in them. */
export interface LaunchOptions {
  readonly request: LaunchRequest;
  /** Program and arguments of a rank. */
  readonly command: readonly string[];
  /** Between GPUs the ranks talk by themselves, and this process starts them; on CPUs mpirun does. */
  readonly device: "cpu" | "cuda";
  readonly env?: Environment;
  /** Seconds in which the other machines have to arrive. */
  readonly timeoutSeconds: number;
  /** Digest of the recipe: machines that were given different ones are told. */
  readonly recipe: string;
  /** Who asks the ranks to stop; default: SIGINT and SIGTERM. */
  readonly control?: LaunchControl;
}

/**
 * Starts the processes of a run and stays with them until the last has ended.
 *
 * @returns the exit code of the run
 * @throws CommError when they could not be started
 */
export async function launchRun(options: LaunchOptions): Promise<number> {
  const { request, command, device, control = signalControl } = options;
  const { stdout, stderr } = process;
  const terminal = stderr.isTTY === true && !process.env.CI;
  const output = launchOutput(terminal, {
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
  });
  const env = {
    ...withoutTorchrun(options.env ?? process.env),
    SIMPER_LAUNCHED: "1", // what this process has told its user, no rank tells again
    // Rank 0 writes to a pipe and draws its line of progress for the terminal behind it.
    ...(terminal && { SIMPER_TERMINAL: String(stderr.columns || 80) }),
  };
  const start = async (): Promise<Running> => {
    const { machines, nproc } = request;
    if (device === "cuda") {
      return startForked({
        ...{ command, env, nproc, ...output },
        node: machines?.index ?? 0,
        nodes: machines?.count ?? 1,
        master: machines ?? { address: "127.0.0.1", port: await freePort() },
        token: machines?.token ?? randomBytes(32).toString("hex"),
      });
    }
    if (machines !== undefined) {
      const offer = { nproc, command, cwd: process.cwd(), recipe: options.recipe };
      const { timeoutSeconds } = options;
      return startAcross({ machines, offer, timeoutSeconds, env, ...output });
    }
    const here = { address: "localhost", count: nproc, command, cwd: process.cwd() };
    return startMpirun({ machines: [here], env, ...output });
  };
  return launch(start, output, control);
}

/** A port of this machine that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}
