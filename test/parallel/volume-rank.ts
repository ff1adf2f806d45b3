import path from "node:path";
import { defineConfig } from "#src/config/load.js";
import { Communicator } from "#src/native/index.js";
import { AdamW } from "#src/optim/adamw.js";
import type { ZeroStage } from "#src/parallel/layout.js";
import { train } from "#src/train/trainer.js";
import { report } from "../support/ranks.js";
import { trajectory } from "../train/support.js";

// One rank of a real training run. Notes what its communicator has sent when the exchanges of each step are done.
// Arguments: zero_stage, bf16, max_tokens_per_micro_batch, pairs a step, output_dir.

const [stage, bf16, maxTokens, pairs, folder] = process.argv.slice(2) as string[];

let comm: Communicator | undefined;
const open = Communicator.open.bind(Communicator);
Communicator.open = async (...args) => {
  comm = await open(...args);
  return comm;
};

const snapshots: Record<string, { calls: number; bytes: number }>[] = [];
const step = AdamW.prototype.step;
AdamW.prototype.step = async function (this: AdamW, ...args) {
  await step.apply(this, args);
  await comm!.stream.done(); // the loop goes on when this step has sent everything
  const counted = comm!.counters().map(({ op, calls, bytes }) => [op, { calls, bytes }] as const);
  snapshots.push(Object.fromEntries(counted));
};

const size = Number(process.env.OMPI_COMM_WORLD_SIZE);
const { config } = defineConfig(
  trajectory({
    zeroStage: Number(stage) as ZeroStage,
    bf16: bf16 === "true",
    maxTokensPerMicroBatch: Number(maxTokens),
    perDeviceTrainBatchSize: Number(pairs) / size,
    gradientAccumulationSteps: 1,
    maxSteps: 4,
    outputDir: path.join(folder!, "out"),
  }),
);
await train({ config, device: "cpu", threads: 1 });
report(comm!.rank, snapshots);
