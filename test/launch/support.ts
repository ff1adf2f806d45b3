import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import path from "node:path";
import { root } from "../support/paths.js";

/** Why ranks cannot be started by mpirun here; undefined when they can. */
export const noMpirun = (process.env.PATH ?? "")
  .split(path.delimiter)
  .some((folder) => existsSync(path.join(folder, "mpirun")))
  ? undefined
  : "skipped: there is no mpirun";

/** A file of this folder that is run as it is. */
export function program(name: string): string {
  return path.join(root, "test", "launch", name);
}

/** The environment without what makes a process a rank. */
export function plainEnvironment(): Record<string, string> {
  const ours = /^(OMPI_|PMIX_|SLURM_|RANK$|WORLD_SIZE$|LOCAL_|MASTER_|SIMPER_)/;
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !ours.test(name)),
  ) as Record<string, string>;
}

/** A program that has been started, and what it wrote so far. */
export interface Started {
  readonly child: ChildProcess;
  readonly out: () => string;
  readonly err: () => string;
  /** Resolves when stderr has this text. */
  readonly says: (text: string) => Promise<void>;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
}

export function start(
  command: readonly string[],
  options: { env?: Record<string, string>; cwd?: string } = {},
): Started {
  const child = spawn(command[0]!, command.slice(1), {
    cwd: options.cwd ?? root,
    env: { ...plainEnvironment(), ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const text = { out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (more: string) => {
    text.out += more;
  });
  const waiting: { text: string; resolve: () => void }[] = [];
  child.stderr.setEncoding("utf8").on("data", (more: string) => {
    text.err += more;
    for (const wait of waiting) if (text.err.includes(wait.text)) wait.resolve();
  });
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal }));
  return {
    child,
    out: () => text.out,
    err: () => text.err,
    says: async (wanted) => {
      const found = new Promise<void>((resolve) => waiting.push({ text: wanted, resolve }));
      if (text.err.includes(wanted)) return;
      const end = ended.then(() => {
        if (!text.err.includes(wanted)) throw new Error(`ended without "${wanted}": ${text.err}`);
      });
      await Promise.race([found, end]);
    },
    ended,
  };
}

/** The launcher with ranks of probe.mjs. */
export function startProbes(
  device: "cpu" | "cuda",
  nproc: number,
  behaviour: string,
  options: { log?: string; env?: Record<string, string> } = {},
): Started {
  const rank = [
    process.execPath,
    program("probe.mjs"),
    behaviour,
    ...(options.log === undefined ? [] : [options.log]),
  ];
  const words = [program("launcher.mjs"), device, String(nproc), ...rank];
  return start([process.execPath, ...words], options);
}

/** Pids that probes have written to a file and that are alive. */
export function livingIn(log: string): number[] {
  return readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map(Number)
    .filter((pid) => {
      try {
        // A zombie has ended, too; only its parent has not looked yet.
        return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
      } catch {
        return false;
      }
    });
}

/** Waits for a condition; throws after a generous time, so that a test ends where the product hangs. */
export async function until(what: string, holds: () => boolean, seconds = 30): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Resolves when a program of this machine listens on a port; throws after a generous time, as `until`. */
export async function listens(port: number): Promise<void> {
  const end = Date.now() + 30e3;
  while (!(await accepts(port))) {
    if (Date.now() > end) throw new Error(`nobody listens on port ${port} after 30 s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function accepts(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  return once(socket, "connect").then(
    () => {
      socket.destroy();
      return true;
    },
    () => false,
  );
}

/** torchrun's variables of rank 0 to 3, of two on each machine. */
export function torchrunVariables(
  rank: number,
  address: string,
  port: number,
): Record<string, string> {
  return {
    ...{ RANK: String(rank), WORLD_SIZE: "4" },
    ...{ LOCAL_RANK: String(rank % 2), LOCAL_WORLD_SIZE: "2" },
    ...{ MASTER_ADDR: address, MASTER_PORT: String(port) },
  };
}
