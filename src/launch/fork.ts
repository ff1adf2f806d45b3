import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { type Environment, rankTimeout } from "../parallel/ranks.js";
import type { RankOutput } from "./output.js";
import { endSessions, send } from "./processes.js";
import { exitCodeOf, isOwnExit, type RankEnd, type Running, signalText } from "./running.js";

/** Ranks that this launcher starts itself, and their place in the run. */
export interface ForkOptions {
  /** Program and arguments of a rank. */
  readonly command: readonly string[];
  readonly env: Environment;
  /** Ranks on this machine. */
  readonly nproc: number;
  /** This machine's number, and how many there are; each has `nproc` ranks. */
  readonly node: number;
  readonly nodes: number;
  /** Where rank 0 listens. */
  readonly master: { readonly address: string; readonly port: number };
  /** Secret of the run. */
  readonly token: string;
  readonly stdout: RankOutput;
  readonly stderr: RankOutput;
}

/** How long the others may take to end when one has failed: they notice after SIMPER_RANK_TIMEOUT at the latest. */
function failureGraceMs(env: Environment): number {
  return 1500 * rankTimeout(env);
}

/** Starts a process per rank with the variables that torchrun sets. */
export function startForked(options: ForkOptions): Running {
  const { command, nproc, node, stdout, stderr } = options;
  const graceMs = failureGraceMs(options.env);
  const ranks = Array.from({ length: nproc }, (_, local) => {
    const rank = node * nproc + local;
    const child = spawn(command[0]!, command.slice(1), {
      env: { ...(options.env as Record<string, string>), ...variables(options, rank, local) },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    child.stdout.on("data", (bytes: Buffer) => stdout.feed(rank, bytes));
    child.stderr.on("data", (bytes: Buffer) => stderr.feed(rank, bytes));
    return { rank, child };
  });
  const children = ranks.map(({ child }) => child);
  const pids = children.flatMap(({ pid }) => pid ?? []);
  const first = firstFailure(ranks, () => {
    const late = setTimeout(() => void endSessions(pids, 0), graceMs);
    void allEnded(children).then(() => clearTimeout(late));
  });
  return {
    pids,
    graceMs: 0,
    ended: allEnded(children).then(first),
    drained: Promise.all(children.map(drained)),
    stop: () => {
      for (const { pid, exitCode, signalCode } of children)
        if (pid !== undefined && exitCode === null && signalCode === null) send(pid, "SIGUSR2");
    },
  };
}

function variables(options: ForkOptions, rank: number, local: number): Record<string, string> {
  const { nproc, nodes, node, master, token } = options;
  return {
    RANK: String(rank),
    WORLD_SIZE: String(nodes * nproc),
    LOCAL_RANK: String(local),
    LOCAL_WORLD_SIZE: String(nproc),
    GROUP_RANK: String(node),
    MASTER_ADDR: master.address,
    MASTER_PORT: String(master.port),
    SIMPER_RUN_TOKEN: token,
  };
}

/** Remembers which rank failed first; the result tells how the run ended. */
function firstFailure(
  ranks: readonly { rank: number; child: ChildProcess }[],
  onFailure: () => void,
): () => RankEnd {
  let end: RankEnd | undefined;
  for (const { rank, child } of ranks) {
    const fail = (failure: RankEnd): void => {
      if (end !== undefined) return;
      end = failure;
      onFailure();
    };
    child.on("error", (error) => {
      fail({ exitCode: 1, reason: `rank ${rank} could not be started: ${error.message}` });
    });
    child.on("exit", (code, signal) => {
      if (code === 0) return;
      const exitCode = exitCodeOf(code, signal);
      const reason =
        signal === null
          ? `rank ${rank} ended with exit code ${code}`
          : `rank ${rank} was ended by ${signalText(constants.signals[signal])}`;
      fail({ exitCode, reason, told: code !== null && isOwnExit(code) });
    });
  }
  return () => end ?? { exitCode: 0 };
}

async function allEnded(children: readonly ChildProcess[]): Promise<void> {
  await Promise.all(
    children.map((child) => {
      if (child.exitCode !== null || child.signalCode !== null) return undefined;
      return new Promise<void>((resolve) => {
        child.once("exit", () => resolve());
        child.once("error", () => resolve());
      });
    }),
  );
}

/** Output that arrives after the end of a process still belongs to it. */
async function drained(child: ChildProcess): Promise<void> {
  if (child.pid !== undefined) await once(child, "close");
}
