import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { CommError } from "../errors.js";
import type { Environment } from "../parallel/ranks.js";
import {
  findMpirun,
  firstFailure,
  type MachineNetwork,
  type MachineRanks,
  mpirunArguments,
  mpirunEnvironment,
} from "./openmpi.js";
import { createTagReader } from "./openmpi-output.js";
import type { RankOutput } from "./output.js";
import { send } from "./processes.js";
import { exitCodeOf, isOwnExit, type RankEnd, type Running, signalText } from "./running.js";

/** A run that mpirun starts and looks after. */
export interface MpirunOptions {
  /** This machine first. */
  readonly machines: readonly MachineRanks[];
  /** How to reach the others, if there are any. */
  readonly network?: MachineNetwork | undefined;
  readonly env: Environment;
  readonly stdout: RankOutput;
  readonly stderr: RankOutput;
}

/** mpirun ends its ranks within a second or two; on other machines, too. */
const GRACE_MS = 5000;

/**
 * Starts the ranks of all machines with mpirun.
 * @throws CommError when there is no mpirun
 */
export function startMpirun(options: MpirunOptions): Running {
  const { machines, network, env, stdout, stderr } = options;
  const child = spawn(findMpirun(env), mpirunArguments(machines, network, env), {
    argv0: "mpirun", // called by its path, it would look for its daemon at that path on every machine
    env: mpirunEnvironment(env),
    stdio: ["ignore", "pipe", "pipe"],
    detached: true, // Ctrl-C on the terminal is for the launcher; mpirun would kill its ranks
  });
  const messages: string[] = [];
  const read = (from: Readable, output: RankOutput): void => {
    const reader = createTagReader((piece) => {
      if ("mpirun" in piece) messages.push(piece.mpirun);
      else output.feed(piece.rank, Buffer.from(piece.text, "latin1"));
    });
    from.setEncoding("latin1");
    from.on("data", reader.feed);
    from.on("end", reader.end);
  };
  read(child.stdout, stdout);
  read(child.stderr, stderr);
  const { pid } = child;
  const drained = pid === undefined ? Promise.resolve() : once(child, "close");
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>(
    (resolve, reject) => {
      child.once("error", (error) =>
        reject(new CommError(`mpirun could not be started: ${error.message}`, { cause: error })),
      );
      child.once("exit", (code, signal) => resolve({ code, signal }));
    },
  );
  return {
    pids: pid === undefined ? [] : [pid],
    graceMs: GRACE_MS,
    drained,
    ended: ended.then(async ({ code, signal }) => {
      // What mpirun says comes by the same way as the ranks' lines, and may be late where a child of a rank
      // keeps the pipe open.
      await Promise.race([drained, later(1000)]);
      return describeEnd(exitCodeOf(code, signal), signal, messages);
    }),
    stop: () => {
      if (pid !== undefined && child.exitCode === null) send(pid, "SIGUSR2"); // passed on to all ranks
    },
  };
}

function describeEnd(
  exitCode: number,
  signal: NodeJS.Signals | null,
  messages: readonly string[],
): RankEnd {
  if (exitCode === 0) return { exitCode };
  if (signal !== null) return { exitCode, reason: `mpirun was ended by ${signal}` };
  const failure = messages.map(firstFailure).find((found) => found !== undefined);
  if (failure === undefined) {
    const text = messages.map((message) => message.trim()).filter((message) => message !== "");
    return { exitCode, reason: [`mpirun ended with exit code ${exitCode}`, ...text].join("\n") };
  }
  const { rank, machine, signal: by, code } = failure;
  const reason =
    by === undefined
      ? `rank ${rank} ended with exit code ${code}`
      : `rank ${rank} on ${machine} was ended by ${signalText(by)}`;
  return { exitCode, reason, told: code !== undefined && isOwnExit(code) };
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, ms).unref());
}
