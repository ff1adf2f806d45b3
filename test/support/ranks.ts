import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** What a run of several processes came to. */
export interface RanksResult<T> {
  /** Exit code of mpirun; null when it was killed. */
  readonly code: number | null;
  /** What each rank gave to {@link report} last; undefined where it got to none. */
  readonly reports: readonly (T | undefined)[];
  readonly stdout: string;
  readonly stderr: string;
}

/** Why `mpirun` cannot be used, for `test(…, { skip })`; false where it can. */
export const noMpi: string | false =
  spawnSync("mpirun", ["--version"], { stdio: "ignore" }).status === 0
    ? false
    : "mpirun is not installed";

/** Above any time that a run takes on a busy machine: what is left then hangs. */
const HANG_MS = 180_000;

interface Running {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number | null;
}

/** Runs a program to its end, or to {@link HANG_MS}. */
async function run(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Running> {
  const child = spawn(program, args, {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: HANG_MS,
    killSignal: "SIGKILL",
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  return { code, stdout, stderr };
}

/**
 * Runs a compiled program as `ranks` processes of one mpirun.
 * @param program path of a JavaScript file
 */
export function runRanks<T>(
  ranks: number,
  program: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<RanksResult<T>> {
  const launch = ["-n", String(ranks), "--oversubscribe", "--bind-to", "none"];
  const root = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
  return withReports(ranks, (reports) =>
    run("mpirun", [...launch, process.execPath, program, ...args], { ...root, ...reports, ...env }),
  );
}

/** The same without mpirun: each process gets RANK and WORLD_SIZE. */
export function forkRanks<T>(
  ranks: number,
  program: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<RanksResult<T>> {
  return withReports(ranks, async (reports) => {
    const all = Array.from({ length: ranks }, (_, rank) =>
      run(process.execPath, [program, ...args], {
        RANK: String(rank),
        WORLD_SIZE: String(ranks),
        ...reports,
        ...env,
      }),
    );
    const ended = await Promise.all(all);
    return {
      code: ended.find(({ code }) => code !== 0)?.code ?? 0,
      stdout: ended.map(({ stdout }) => stdout).join(""),
      stderr: ended.map(({ stderr }) => stderr).join(""),
    };
  });
}

async function withReports<T>(
  ranks: number,
  body: (env: Record<string, string>) => Promise<Running>,
): Promise<RanksResult<T>> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "simper-ranks-"));
  const read = (rank: number) => {
    const file = path.join(folder, `${rank}.json`);
    return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as T) : undefined;
  };
  try {
    const ended = await body({ SIMPER_TEST_REPORTS: folder });
    return { ...ended, reports: Array.from({ length: ranks }, (_, rank) => read(rank)) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Inside a rank: whether all have reported. */
export function everyReport(ranks: number): boolean {
  const folder = process.env.SIMPER_TEST_REPORTS!;
  const files = Array.from({ length: ranks }, (_, rank) => path.join(folder, `${rank}.json`));
  return files.every((file) => existsSync(file));
}

/** Inside a rank: what the test gets to see of it. */
export function report(rank: number, value: unknown): void {
  writeFileSync(path.join(process.env.SIMPER_TEST_REPORTS!, `${rank}.json`), JSON.stringify(value));
}
