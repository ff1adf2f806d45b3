// One rank of elastic.test.ts: reads checkpoints and writes them again, in several ZeRO stages one after another.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { readConfigFile } from "#src/checkpoint/model-directory.js";
import { defineConfig } from "#src/config/load.js";
import type { RecipeInput } from "#src/config/schema.js";
import { isReported } from "#src/errors.js";
import { readModelShape } from "#src/model/index.js";
import { openDevice } from "#src/native/index.js";
import type { ProcessGroup } from "#src/parallel/group.js";
import type { ZeroStage } from "#src/parallel/layout.js";
import { ranksFromEnvironment } from "#src/parallel/ranks.js";
import { modelBlocks } from "#src/train/plan.js";
import { ResidentModel } from "#src/train/resident-model.js";
import {
  findCheckpoint,
  restoreCheckpoint,
  saveCheckpoint,
  saveModel,
} from "#src/train/run-checkpoint.js";
import { closeWorld, openWorld } from "#src/train/world.js";
import { report } from "../support/ranks.js";

/** One checkpoint to read and what to write of it. */
export interface Job {
  /** The checkpoint, as the recipe names it. */
  readonly recipe: RecipeInput & { resumeFromCheckpoint: string; outputDir: string };
  readonly stage: ZeroStage;
  /** A model folder of files of at most so many bytes, too. */
  readonly model?: { readonly folder: string; readonly maxShardBytes: number };
  /** No file of this rank may become larger, while the job lasts. */
  readonly limit?: { readonly rank: number; readonly bytes: number };
  /** This rank is killed when it comes to this exchange. */
  readonly kill?: { readonly rank: number; readonly at: string };
}

/** How a job ended on a rank; null: well. */
export type JobReport = { readonly message: string; readonly reported: boolean } | null;

const { jobs } = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as { jobs: Job[] };
const ranks = ranksFromEnvironment(process.env);
const device = openDevice("cpu", { threads: 1 });
const world = (await openWorld(ranks, device, { ddpTimeout: 100 }))!;
const found: JobReport[] = [];
for (const job of jobs) {
  const outcome = await run(job).then(
    () => null,
    (error: Error) => ({ message: error.message, reported: isReported(error) }),
  );
  found.push(outcome);
  report(ranks.rank, found);
}
await closeWorld(world);
device.dispose();

async function run({ recipe, stage, model: copy, limit, kill }: Job): Promise<void> {
  const { config } = defineConfig(recipe);
  const checkpoint = (await findCheckpoint(config))!;
  const source = await readConfigFile(checkpoint.dir);
  const shape = readModelShape(source);
  const model = new ResidentModel({
    device,
    shape,
    blocks: modelBlocks(shape),
    dtype: config.bf16 ? "bf16" : "f32",
    training: true,
    fabric: world,
    stage,
  });
  const group = kill && kill.rank === ranks.rank ? dying(world.group, kill.at) : world.group;
  try {
    await restoreCheckpoint(model, checkpoint.dir, group);
    if (limit?.rank === ranks.rank) limitFiles(String(limit.bytes));
    const { state, trainerState } = checkpoint;
    await saveCheckpoint(model, state, trainerState, source, config, group);
    if (copy) mkdirSync(copy.folder, { recursive: true });
    if (copy) await saveModel(model, copy.folder, source, config, group, copy.maxShardBytes);
  } finally {
    if (limit?.rank === ranks.rank) limitFiles("unlimited");
    model.dispose();
  }
}

/** Largest file that this process may write, from now on. */
function limitFiles(bytes: string): void {
  const { status, stderr } = spawnSync("prlimit", [`--pid=${process.pid}`, `--fsize=${bytes}:`]);
  if (status !== 0) throw new Error(`prlimit: ${stderr}`);
}

/** A group whose process is killed when it comes to an exchange. */
function dying(group: ProcessGroup, at: string): ProcessGroup {
  const gather = <T>(what: string, value: T): Promise<T[]> => {
    if (what === at) process.kill(process.pid, "SIGKILL");
    return group.gather(what, value);
  };
  return {
    rank: group.rank,
    size: group.size,
    localRank: group.localRank,
    localSize: group.localSize,
    failure: group.failure,
    gather,
    broadcast: (what, value) => group.broadcast(what, value),
    barrier: (what) => group.barrier(what),
    doing: (what) => group.doing(what),
    fail: (error) => group.fail(error),
    close: () => group.close(),
  };
}
