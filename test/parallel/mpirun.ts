import { spawn, spawnSync } from "node:child_process";
import path from "node:path";
import { root } from "../support/paths.js";

/** Why nothing can be started under mpirun here; false: it can. */
export const noMpirun: string | false =
  spawnSync("mpirun", ["--version"]).status === 0 ? false : "mpirun is not installed";

/** What a group of processes left behind. */
export interface RanksResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a compiled test program, named from test/, as `ranks` processes on this machine. */
export function runRanks(
  ranks: number,
  program: string,
  words: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<RanksResult> {
  const file = path.join(root, "dist-test", program);
  const options = ["-n", String(ranks), "--oversubscribe", "--bind-to", "none"];
  const child = spawn("mpirun", [...options, process.execPath, file, ...words], {
    env: {
      ...process.env,
      OMPI_ALLOW_RUN_AS_ROOT: "1",
      OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
      OMP_NUM_THREADS: "1",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...output }));
  });
}
