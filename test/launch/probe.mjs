// A rank for tests of the launcher: says who it is, and then does what its argument asks for.
import { appendFileSync, existsSync, writeFileSync } from "node:fs";

const { env, stderr, stdout } = process;
const rank = Number(env.OMPI_COMM_WORLD_RANK ?? env.RANK);
const size = Number(env.OMPI_COMM_WORLD_SIZE ?? env.WORLD_SIZE);
const [behaviour, log] = process.argv.slice(2);

/** Once this process does what the test is about. */
function note() {
  if (log) appendFileSync(log, `${process.pid}\n`);
}

const says = {
  hello() {
    stdout.write(`out of ${rank} of ${size} in ${process.cwd()}\n`);
    stderr.write(`err of ${rank}: prices in €, half a li`);
    setTimeout(() => stderr.write("ne\nunfinished"), 50);
  },
  // All find the same mistake and tell it with a second line.
  mistake() {
    stderr.write("simper-native: recipe.yaml:3:1  the data is not there\n  Look for it.\n");
    process.exitCode = 2;
  },
  // Rank 1 goes without a word.
  silent() {
    if (rank === 1) process.exitCode = 1;
  },
  async killed() {
    note();
    if (rank === 1) process.kill(process.pid, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },
  // Saves when asked, and does not hear another signal.
  async stops() {
    const ended = new Promise((resolve) => {
      process.on("SIGUSR2", () => setTimeout(resolve, 200));
      process.on("SIGTERM", () => {});
    });
    note();
    const beat = setInterval(() => {}, 1000);
    await ended;
    clearInterval(beat);
    if (rank === 0) stderr.write("saved\n");
    process.exitCode = 130;
  },
  // As ranks that agree on the step after which they stop: here through a file.
  async stopsTogether() {
    let asked = false;
    process.on("SIGUSR2", () => writeFileSync(`${log}.stop`, ""));
    note();
    while (!asked) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      asked = existsSync(`${log}.stop`);
    }
    if (rank === 0) stderr.write("saved\n");
    process.exitCode = 130;
  },
  async stubborn() {
    for (const signal of ["SIGUSR2", "SIGTERM", "SIGINT"]) process.on(signal, () => {});
    note();
    await new Promise((resolve) => setTimeout(resolve, 120_000));
  },
  environment() {
    const { RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT } = env;
    const token = env.SIMPER_RUN_TOKEN?.length;
    const values = { RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT };
    stdout.write(`${JSON.stringify({ ...values, token })}\n`);
  },
};
await says[behaviour]();
