import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { accessSync, closeSync, constants, openSync, readSync } from "node:fs";
import type { Socket } from "node:net";
import path from "node:path";
import { createLogReporter, type LogSink } from "./logs.js";
import type { Reporter } from "./records.js";

/** What a run of W&B is begun with. */
export interface WandbOptions {
  /** The interpreter that can import wandb: {@link findWandb}. */
  readonly python: string;
  /** `WANDB_PROJECT` wins. */
  readonly project: string;
  /** Settings listed with the run. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Told where the run can be seen, and why it ended early. */
  readonly notice: (text: string) => void;
}

/** First line: how to begin. Every other line: what to log. The address of the run is printed once. */
const PROGRAM = `
import json, os, sys
import wandb
first = json.loads(sys.stdin.readline())
first["project"] = os.environ.get("WANDB_PROJECT") or first["project"]
run = wandb.init(**first)
run.define_metric("train/global_step")
run.define_metric("*", step_metric="train/global_step", step_sync=True)
print(getattr(run, "url", None) or getattr(run, "dir", ""), flush=True)
for line in sys.stdin:
    run.log(json.loads(line))
run.finish()
`;

/**
 * The Python that has wandb: the one that an installed `wandb` command names in its first line, else
 * `python3`. Undefined where there is none.
 */
export function findWandb(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const folders = (env.PATH ?? "").split(path.delimiter).filter((folder) => folder !== "");
  const found = (name: string): string | undefined =>
    folders.map((folder) => path.join(folder, name)).find(isExecutable);
  const command = found("wandb");
  const candidates = [command && interpreterOf(command), found("python3")];
  const ask = "import importlib.util, sys; sys.exit(importlib.util.find_spec('wandb') is None)";
  return candidates.find(
    (python) =>
      python !== undefined &&
      spawnSync(python, ["-c", ask], { env, stdio: "ignore", timeout: 10_000 }).status === 0,
  );
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The program that `#!` names at the top of a script. */
function interpreterOf(script: string): string | undefined {
  const head = Buffer.alloc(256);
  const handle = openSync(script, "r");
  try {
    readSync(handle, head, 0, head.length, 0);
  } finally {
    closeSync(handle);
  }
  const named = /^#! *(\/\S*python\S*) *\n/.exec(head.toString("latin1"))?.[1];
  return named !== undefined && isExecutable(named) ? named : undefined;
}

/**
 * Reports to W&B through an installed wandb, in a process of its own that is given the lines to log. A
 * failure there is told once and never ends the training.
 */
export function createWandbReporter(options: WandbOptions): Reporter {
  return createLogReporter(wandbProcess(options));
}

function wandbProcess({ python, project, config, notice }: WandbOptions): LogSink {
  let child: ChildProcess | undefined;
  const send = (line: unknown): void => {
    if (child?.stdin?.writable) child.stdin.write(`${JSON.stringify(line)}\n`);
  };
  return {
    open({ outputDir, runName, resumedStep }) {
      // A group of its own: Ctrl-C is for the training, and what it logs at its end has to arrive too.
      child = spawn(python, ["-c", PROGRAM], { detached: true, stdio: "pipe" });
      // A training that fails must not wait for it; one that ends does, see close().
      child.unref();
      for (const pipe of [child.stdin, child.stdout, child.stderr])
        (pipe as Socket | null)?.unref();
      let errors = "";
      child.stderr?.setEncoding("utf8").on("data", (text: string) => {
        errors = (errors + text).slice(-2000);
      });
      child.stdout?.setEncoding("utf8").once("data", (text: string) => {
        notice(`wandb: ${text.trim()}`);
      });
      child.stdin?.on("error", () => {}); // the exit says why
      child.on("error", (error) => notice(`wandb: ${python} cannot be started: ${error.message}`));
      child.on("exit", (code, signal) => {
        if (code === 0) return;
        const why = errors.trim().split("\n").at(-1) || `exit ${code ?? signal}`;
        notice(`wandb ended early, the training goes on: ${why}`);
      });
      const name = runName ?? undefined;
      send({ project, name, dir: outputDir, config: { ...config, resumed_step: resumedStep } });
    },
    log: (step, values) => send({ ...values, "train/global_step": step }),
    close() {
      child?.ref();
      child?.stdin?.end();
    },
  };
}
