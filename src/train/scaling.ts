import type { Config } from "../config/schema.js";
import { createOrder } from "../data/order.js";
import { packRanks } from "../data/pack-ranks.js";
import type { ModelShape } from "../model/index.js";
import { elementCount } from "../native/index.js";
import { shardedElements, type ZeroStage } from "../parallel/layout.js";
import { stepVolume, taskBytes, type VolumeOptions } from "../parallel/volume.js";
import {
  type Collective,
  type CommTask,
  type ComputeTask,
  StepWalk,
  type Task,
} from "../parallel/walk.js";
import type { PlanInputs } from "./make-plan.js";
import {
  draftPlan,
  GPU_ENOUGH_TOKENS,
  type MemoryLine,
  type RunPlan,
  volumeOptions,
} from "./plan.js";

/**
 * Predicts how the speed of a run grows with the number of GPUs: the schedule of `parallel/walk.ts` with a time
 * for every entry. Nothing here was measured on several GPUs; what is assumed is in `Gpu` and `Link`.
 */

/** What a training step gets out of a GPU. */
export interface Gpu {
  readonly title: string;
  /** bf16, dense, nominal. */
  readonly peakFlops: number;
  /** Share of the peak that the executed operations of a step reach. */
  readonly share: number;
  /** Bytes per second to its memory, as reached. */
  readonly memoryBandwidth: number;
  /** Bytes that are free on it. */
  readonly memory: number;
}

/** The GPUs that are known. What a step reaches is assumed to be 60% of the peak, above what is published for 8B. */
export const GPUS = {
  h100: {
    title: "H100 SXM, 80 GB",
    peakFlops: 989e12,
    share: 0.6,
    memoryBandwidth: 3.0e12,
    memory: 83e9,
  },
  h200: {
    title: "H200 SXM, 141 GB",
    peakFlops: 989e12,
    share: 0.6,
    memoryBandwidth: 4.3e12,
    memory: 149e9,
  },
} as const satisfies Record<string, Gpu>;

/** What connects GPUs: per GPU inside of a machine, per machine between machines. */
export interface Link {
  readonly title: string;
  /** In one direction, nominal. */
  readonly bytesPerSecond: number;
  /** Of one hop of a ring. */
  readonly latencySeconds: number;
}

/** Links inside of a machine, and between machines. */
export const LINKS_INSIDE: readonly Link[] = [
  { title: "NVLink 4", bytesPerSecond: 450e9, latencySeconds: 2e-6 },
  { title: "PCIe 5.0 x16", bytesPerSecond: 63e9, latencySeconds: 4e-6 },
];
export const LINKS_BETWEEN: readonly Link[] = [
  { title: "100 Gb/s", bytesPerSecond: 12.5e9, latencySeconds: 10e-6 },
  { title: "400 Gb/s", bytesPerSecond: 50e9, latencySeconds: 10e-6 },
  { title: "8 x 400 Gb/s", bytesPerSecond: 400e9, latencySeconds: 10e-6 },
];

/** GPUs in machines. */
export interface Cluster {
  readonly gpu: Gpu;
  readonly inside: Link;
  readonly between: Link;
}

/** GPUs of a machine. */
export const PER_MACHINE = 8;
/** Share of a link's nominal speed that exchanges reach. */
export const LINK_SHARE = 0.8;

/** What one rank computes in a step, in all of its micro-batches together. */
export interface Work {
  readonly tokens: number;
  readonly scoredTokens: number;
  /** Pairs of a query and a key that it sees. */
  readonly keys: number;
}

/** A predicted step. */
export interface Prediction {
  readonly stepSeconds: number;
  /** Seconds of the same work, spread evenly and without exchanges, over stepSeconds: 1 where nobody waits. */
  readonly efficiency: number;
}

/** Bytes of memory that an update moves per parameter: f32 gradient, master and moments, and a bf16 weight. */
const UPDATE_BYTES = { bf16: 30, f32: 28 };

/**
 * Seconds of one exchange of `bytes` in all: rings inside the machines and rings between them, one phase after the
 * other, each rank sending the bytes that {@link stepVolume} counts. A machine's link carries what all of its
 * GPUs send to other machines.
 */
export function exchangeSeconds(
  op: Collective,
  bytes: number,
  size: number,
  { inside, between }: Pick<Cluster, "inside" | "between">,
): number {
  if (size === 1) return 0;
  const local = Math.min(size, PER_MACHINE);
  const machines = Math.ceil(size / local);
  const ring = (members: number, { bytesPerSecond, latencySeconds }: Link) =>
    (bytes * (members - 1)) / members / (bytesPerSecond * LINK_SHARE) +
    (members - 1) * latencySeconds;
  const once = ring(local, inside) + ring(machines, between);
  return op === "all_reduce" ? 2 * once : once;
}

/** Seconds of a rank's part of the model's work in one micro-batch, by part of the walk. */
function computeSeconds(
  config: Config,
  shape: ModelShape,
  { slots, size, stage, dtype, blocks }: VolumeOptions,
  work: Work,
  gpu: Gpu,
): (task: ComputeTask) => number {
  const rate = gpu.peakFlops * gpu.share;
  const matrices = blocks[0]!.parameters
    .filter(({ decay }) => decay)
    .reduce((sum, parameter) => sum + elementCount(parameter.shape), 0);
  const body = (2 * matrices * work.tokens) / slots;
  const attention = (4 * shape.numHeads * shape.headDim * work.keys) / slots;
  const head = (6 * shape.vocabSize * shape.hiddenSize * work.scoredTokens) / slots;
  const seconds: Partial<Record<ComputeTask["part"], number>> = {
    forward: (body + attention) / rate,
    recompute: config.gradientCheckpointing ? (body + attention) / rate : 0,
    backward: (2 * body + 2.5 * attention) / rate,
    head: head / rate,
  };
  return ({ part, block }) => {
    if (part !== "update") return seconds[part] ?? 0;
    const elements = shardedElements(blocks[block]!, size) / (stage === 0 ? 1 : size);
    return (elements * UPDATE_BYTES[dtype === "bf16" ? "bf16" : "f32"]) / gpu.memoryBandwidth;
  };
}

/** Seconds of a step that follows others, each stream taking its entries in order. */
function stepSeconds(options: VolumeOptions, secondsOf: (task: Task) => number): number {
  const walk = new StepWalk({ ...options, layers: options.blocks.length - 1 });
  const done: number[] = [];
  const ends: number[] = [];
  const free = { compute: 0, comm: 0 };
  for (let step = 0; step < 3; step++) {
    for (const task of walk.step()) {
      const ready = Math.max(free[task.stream], ...task.after.map((index) => done[index]!));
      free[task.stream] = ready + secondsOf(task);
      done.push(free[task.stream]);
    }
    ends.push(free.compute);
  }
  return ends[2]! - ends[1]!;
}

/**
 * Predicts a step in the middle of a run on `cluster`.
 * @param work of the rank that computes most, and the mean of all
 */
export function predictStep(
  config: Config,
  shape: ModelShape,
  options: VolumeOptions,
  work: { readonly most: Work; readonly mean: Work },
  cluster: Cluster,
): Prediction {
  const seconds = (of: Work, exchange: (task: CommTask) => number) => {
    const compute = computeSeconds(config, shape, options, of, cluster.gpu);
    return stepSeconds(options, (task) =>
      task.stream === "compute" ? compute(task) : exchange(task),
    );
  };
  const step = seconds(work.most, (task) =>
    exchangeSeconds(task.op, taskBytes(task, options), options.size, cluster),
  );
  const ideal = seconds(work.mean, () => 0);
  return { stepSeconds: step, efficiency: ideal / step };
}

/**
 * What the first step of a run computes: the sum over its slots of the fullest rank, and the mean of the ranks. Pairs
 * are taken to have two responses of the same length behind a prompt that is computed once, as far as their
 * attention is concerned.
 */
export function firstStepWork(
  config: Config,
  { train }: Pick<PlanInputs, "train">,
  { ranks, limits, examplesPerStep }: RunPlan,
): { most: Work; mean: Work } {
  const { shuffle, seed } = config;
  const order = createOrder({ count: train.count, perStep: examplesPerStep, shuffle, seed });
  const members = order(0);
  const lengths = members.map((i) => train.computedTokens[i]!);
  const packed = packRanks(lengths, { maxTokens: limits.tokens, ranks: ranks.size });
  const workOf = (slot: readonly number[]): Work =>
    slot.reduce(
      (sum, i) => {
        const tokens = lengths[i]!;
        const scored = train.scoredTokens[members[i]!]!;
        const response = limits.pairs ? scored / 2 : scored;
        const responses = limits.pairs ? 2 : 1;
        const prompt = tokens - scored;
        const keys = prompt ** 2 / 2 + responses * (prompt * response + response ** 2 / 2);
        return add(sum, { tokens, scoredTokens: scored, keys }, 1);
      },
      { tokens: 0, scoredTokens: 0, keys: 0 },
    );
  let most: Work = { tokens: 0, scoredTokens: 0, keys: 0 };
  let mean = most;
  for (const slot of packed[0]!.keys()) {
    const works = packed.map((slots) => workOf(slots[slot]!));
    most = add(
      most,
      works.reduce((a, b) => (b.tokens > a.tokens ? b : a)),
      1,
    );
    for (const work of works) mean = add(mean, work, 1 / ranks.size);
  }
  return { most, mean };
}

function add(a: Work, b: Work, factor: number): Work {
  return {
    tokens: a.tokens + factor * b.tokens,
    scoredTokens: a.scoredTokens + factor * b.scoredTokens,
    keys: a.keys + factor * b.keys,
  };
}

/** One number of GPUs in one ZeRO stage. */
export interface ScalingRow {
  readonly gpus: number;
  readonly stage: ZeroStage;
  readonly pairsPerStep: number;
  /** Micro-batches of a step. */
  readonly slots: number;
  /** Of one GPU's memory. */
  readonly bytes: number;
  readonly fits: boolean;
  /** What one GPU sends in a step. */
  readonly sentBytes: number;
  /** For every link inside of machines with every link between them. */
  readonly predictions: readonly (Prediction & {
    readonly inside: string;
    readonly between: string;
  })[];
}

/** A scaling table. */
export interface Scaling {
  readonly gpu: Gpu;
  readonly rows: readonly ScalingRow[];
}

/**
 * Predicts steps of a recipe on these numbers of GPUs, in all ZeRO stages.
 * @param examplesPerStep on all GPUs together; absent: as the recipe says, so that a step grows with them
 */
export function predictScaling(
  config: Config,
  inputs: PlanInputs,
  gpu: Gpu,
  counts: readonly number[],
  examplesPerStep?: number,
): Scaling {
  const { train, test } = inputs;
  const longest = [...train.computedTokens, ...test.computedTokens].reduce(
    (a, b) => Math.max(a, b),
    1,
  );
  const rows = counts.flatMap((gpus) => {
    const ranks = { size: gpus, localSize: Math.min(gpus, PER_MACHINE) };
    const maxTokensPerMicroBatch =
      config.maxTokensPerMicroBatch ?? Math.max(GPU_ENOUGH_TOKENS, longest);
    const { plan } = draftPlan(
      { ...config, maxTokensPerMicroBatch },
      inputs.shape,
      train,
      test,
      { device: gpu.memory, machine: Number.POSITIVE_INFINITY },
      { ranks, examplesPerStep },
    );
    const work = firstStepWork(config, inputs, plan);
    return plan.stages.map((of): ScalingRow => {
      const options = { ...volumeOptions(config, inputs.shape, plan), stage: of.stage };
      const predictions = LINKS_INSIDE.flatMap((inside) =>
        LINKS_BETWEEN.map((between) => ({
          inside: inside.title,
          between: between.title,
          ...predictStep(config, inputs.shape, options, work, { gpu, inside, between }),
        })),
      );
      const onDevice = of.totalBytes - hostBytes(plan.lines);
      return {
        gpus,
        stage: of.stage,
        pairsPerStep: plan.examplesPerStep,
        slots: plan.slots.most,
        bytes: onDevice,
        fits: of.fits,
        sentBytes: stepVolume(options).reduce((sum, { bytes }) => sum + bytes, 0),
        predictions,
      };
    });
  });
  return { gpu, rows };
}

function hostBytes(lines: readonly MemoryLine[]): number {
  const host = lines.filter(({ lifetime }) => lifetime === "process");
  return host.reduce((sum, { bytes }) => sum + bytes, 0);
}
