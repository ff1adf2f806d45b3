import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { STAGING_BYTES } from "../checkpoint/weights.js";
import type { Config } from "../config/schema.js";
import { createOrder, stepCount, stepsPerEpoch } from "../data/order.js";
import { packRanks } from "../data/pack-ranks.js";
import { MemoryError } from "../errors.js";
import { losses } from "../loss/index.js";
import {
  type BlockSpec,
  checkPositions,
  familyOf,
  type ModelShape,
  parameterCount,
} from "../model/index.js";
import { type DType, elementCount } from "../native/index.js";
import { scheduleKwargs, warmupLength } from "../optim/schedule.js";
import { flatBytes } from "../parallel/resident.js";
import {
  type BatchLimits,
  type BufferSpec,
  kvCacheBytes,
  passBuffers,
  tokenBucket,
} from "./buffers.js";
import type { ExampleSet } from "./examples.js";
import { chooseSamples, sampleBatches } from "./sample-prompts.js";
import { optimizerBuffers } from "./session.js";

/** A line of the memory table. */
export interface MemoryLine {
  /** Group of the table: how long the memory is kept. */
  readonly lifetime: string;
  /** What lies there. */
  readonly name: string;
  /** Element type; empty for memory of the process. */
  readonly dtype: string;
  /** Extents; empty for memory of the process. */
  readonly shape: readonly number[];
  /** Size of all of it. */
  readonly bytes: number;
}

/** What a run will do and need, known before a device is touched. */
export interface RunPlan {
  /** Parameters of the model. */
  readonly parameters: number;
  /** The memory table. */
  readonly lines: readonly MemoryLine[];
  /** Sum of the table. */
  readonly totalBytes: number;
  /** Largest sizes of a micro-batch. */
  readonly limits: BatchLimits;
  /** The processes that share the run; the table is that of one of them. */
  readonly ranks: RankCounts;
  /** Pairs or sequences of an optimizer step, over all ranks. */
  readonly examplesPerStep: number;
  /** Micro-batches of a rank in an optimizer step, empty ones included: the mean of the run, and the most. */
  readonly slots: { readonly mean: number; readonly most: number };
  /** Optimizer steps of one pass over the data. */
  readonly stepsPerEpoch: number;
  /** Optimizer steps of the run. */
  readonly totalSteps: number;
  /** Of these, steps of the warmup. */
  readonly warmupSteps: number;
}

/** What the plan needs to know of the data. */
export type DataFacts = Pick<
  ExampleSet,
  "count" | "bytes" | "computedTokens" | "scoredTokens" | "longestSequence" | "where" | "parts"
>;

/**
 * Resident memory of Node.js with the addon, oneDNN's generated code and the JavaScript heap of a run,
 * measured on Node 20 (README, "Memory").
 */
const PROCESS_BYTES = 96e6;
/** Tokens of a micro-batch beyond which GEMMs on a CPU gain nothing. */
const ENOUGH_TOKENS = 2048;
/** Largest logits workspace taken by default. */
const LOGITS_BYTES = 128 << 20;
/** Examples evaluated per round trip and rank, at least. */
const EVAL_EXAMPLES = 64;
/** Share of the machine's memory that a plan may fill. */
const USABLE = 0.85;
/** The same of a GPU: its tokens, its logits workspace, and the share of its free memory. */
const GPU_ENOUGH_TOKENS = 16384;
const GPU_LOGITS_BYTES = 1 << 30;
const GPU_USABLE = 0.92;

/** Memory that a plan has to fit into, in bytes. */
export interface AvailableMemory {
  /** Of the machine, or of the container. Default: what this process finds. */
  readonly machine?: number | undefined;
  /** Free on a device with memory of its own, where all but the lines of the process then lie. */
  readonly device?: number | undefined;
}

/** How many processes share a run. */
export interface RankCounts {
  /** In all. */
  readonly size: number;
  /** On this machine, whose memory they divide. */
  readonly localSize: number;
}

const ONE_RANK: RankCounts = { size: 1, localSize: 1 };

/** What a run is planned for besides its recipe and its data. */
export interface PlanOptions {
  /** Default: one process. */
  readonly ranks?: RankCounts;
  /** Tokens per micro-batch of the checkpoint that a run goes on from. */
  readonly tokens?: number | undefined;
  /** Examples per optimizer step of that checkpoint. Default: what the recipe says, times the ranks. */
  readonly examplesPerStep?: number | undefined;
}

/** A plan, and what it breaks. */
export interface DraftPlan {
  readonly plan: RunPlan;
  /** Why the run cannot be started here; undefined where it fits. */
  readonly shortage: MemoryError | undefined;
}

/** Blocks of the model in the store's order: layers, then the edge. */
export function modelBlocks(shape: ModelShape): BlockSpec[] {
  const family = familyOf(shape);
  const layers = Array.from({ length: shape.numLayers }, (_, l) => family.block(shape, l));
  return [...layers, family.edge(shape)];
}

/**
 * Plans memory and steps of a run: a pure function of the recipe, the model, the data's lengths and the
 * machine's memory.
 *
 * @throws MemoryError with the largest lines when the run does not fit.
 */
export function planRun(
  config: Config,
  shape: ModelShape,
  train: DataFacts,
  test: DataFacts,
  memory: AvailableMemory = {},
  options: PlanOptions = {},
): RunPlan {
  const { plan, shortage } = draftPlan(config, shape, train, test, memory, options);
  if (shortage) throw shortage;
  return plan;
}

/** As {@link planRun}; a run that does not fit has its smallest plan and the reason. */
export function draftPlan(
  config: Config,
  shape: ModelShape,
  train: DataFacts,
  test: DataFacts,
  { machine = machineMemory(), device }: AvailableMemory = {},
  { ranks = ONE_RANK, tokens: keep, examplesPerStep: kept }: PlanOptions = {},
): DraftPlan {
  const [enoughTokens, logitsBytes] =
    device === undefined ? [ENOUGH_TOKENS, LOGITS_BYTES] : [GPU_ENOUGH_TOKENS, GPU_LOGITS_BYTES];
  const longestSequence = Math.max(1, train.longestSequence, test.longestSequence);
  checkPositions(shape, longestSequence, "the longest sequence of the run");
  const samples = chooseSamples(config, test);
  checkPositions(
    shape,
    samples.positions,
    "a prompt of the test split and generate_max_new_tokens",
  );
  const examplesPerStep = kept ?? recipeExamplesPerStep(config, ranks.size);
  const longest = [...train.computedTokens, ...test.computedTokens].reduce(
    (a, b) => Math.max(a, b),
    1,
  );
  const steps = { count: train.count, perStep: examplesPerStep };
  const totalSteps = stepCount(steps, config);
  const rounds = () => allRounds(config, train, test, examplesPerStep, totalSteps, ranks.size);
  const withTokens = (cap: number): RunPlan => {
    // Just what the fullest micro-batch needs; a resumed run keeps the tokens of its checkpoint.
    const tokens = keep ?? roundTokens(packAll(rounds(), cap, ranks.size).fullest.tokens);
    // Packed again with the limit the run will use: another limit can fill batches otherwise.
    const { fullest, slots } = packAll(rounds(), tokens, ranks.size);
    const most = { ...fullest, tokens };
    const stepExamples = Math.max(examplesPerStep, test.count > 0 ? evalRound(ranks.size) : 0);
    const given = batchLimits(config, shape, most, logitsBytes, stepExamples, train, test);
    const limits = { ...given, positions: Math.max(given.positions, samples.positions) };
    const rows = sampleBatches(samples, limits).cacheRows;
    const lines = memoryLines(config, shape, limits, train.bytes + test.bytes, rows);
    return {
      parameters: parameterCount(shape),
      lines,
      totalBytes: lines.reduce((sum, line) => sum + line.bytes, 0),
      limits,
      ranks,
      examplesPerStep,
      slots,
      stepsPerEpoch: stepsPerEpoch(steps),
      totalSteps,
      warmupSteps: warmupLength(scheduleOptions(config, totalSteps)),
    };
  };
  const share = machine / ranks.localSize;
  const fits = (plan: RunPlan) => memoryLimits(plan, share, device).every(({ fits }) => fits);
  let plan: RunPlan;
  const wanted = keep ?? config.maxTokensPerMicroBatch;
  if (wanted) {
    plan = withTokens(wanted);
  } else {
    let tokens = Math.max(longest, enoughTokens);
    plan = withTokens(tokens);
    while (!fits(plan) && tokens > longest) {
      tokens = Math.max(longest, Math.floor(tokens * 0.8));
      plan = withTokens(tokens);
    }
  }
  const broken = memoryLimits(plan, share, device).find(({ fits }) => !fits);
  return { plan, shortage: broken && doesNotFit(broken, config) };
}

/** Pairs or sequences of an optimizer step on `size` ranks, as the recipe says. */
export function recipeExamplesPerStep(config: Config, size: number): number {
  return config.perDeviceTrainBatchSize * config.gradientAccumulationSteps * size;
}

/** The schedule of a run of `totalSteps` steps. */
export function scheduleOptions(config: Config, totalSteps: number) {
  const { lrSchedulerType: type, learningRate, warmupSteps, warmupRatio } = config;
  const shape = scheduleKwargs(config.lrSchedulerKwargs, learningRate);
  return { type, learningRate, warmupSteps, warmupRatio, totalSteps, ...shape };
}

/** Memory of the machine, or of the container this process runs in, in bytes. */
export function machineMemory(): number {
  try {
    const limit = readFileSync("/sys/fs/cgroup/memory.max", "utf8").trim();
    if (limit !== "max" && Number(limit) > 0) return Math.min(Number(limit), totalmem());
  } catch {
    // No such limit.
  }
  return totalmem();
}

function roundTokens(tokens: number): number {
  const bucket = tokenBucket(tokens);
  return Math.ceil(tokens / bucket) * bucket;
}

function batchLimits(
  config: Config,
  shape: ModelShape,
  fullest: BatchCounts,
  logitsBytes: number,
  stepExamples: number,
  train: DataFacts,
  test: DataFacts,
): BatchLimits {
  const groupRows = Math.floor(logitsBytes / (4 * shape.vocabSize) / 32) * 32;
  return {
    tokens: fullest.tokens,
    scored: fullest.scored,
    examples: fullest.examples,
    stepExamples,
    groupRows: Math.max(32, Math.min(groupRows, Math.ceil(fullest.scored / 32) * 32)),
    positions: Math.max(1, train.longestSequence, test.longestSequence),
    pairs: losses[config.lossType].examples === "pairs",
  };
}

/** The examples of an optimizer step or an evaluation round. */
interface Round {
  readonly facts: DataFacts;
  readonly members: Int32Array;
  /** An optimizer step, not a round of an evaluation. */
  readonly step: boolean;
}

/** Every optimizer step of the run and every evaluation round. */
function* allRounds(
  config: Config,
  train: DataFacts,
  test: DataFacts,
  perStep: number,
  totalSteps: number,
  ranks: number,
): Generator<Round> {
  const { shuffle, seed } = config;
  const order = createOrder({ count: train.count, perStep, shuffle, seed });
  const epoch = stepsPerEpoch({ count: train.count, perStep });
  const steps = shuffle ? totalSteps : Math.min(totalSteps, epoch);
  for (let step = 0; step < steps; step++) yield { facts: train, members: order(step), step: true };
  const round = Math.max(perStep, evalRound(ranks));
  for (let begin = 0; begin < test.count; begin += round) {
    const count = Math.min(round, test.count - begin);
    const members = Int32Array.from({ length: count }, (_, i) => begin + i);
    yield { facts: test, members, step: false };
  }
}

type BatchCounts = { tokens: number; scored: number; examples: number };

/**
 * Packs all rounds into at most `maxTokens`, as the run will: the most of everything that a micro-batch of any
 * rank holds, and how many there are in a step.
 */
function packAll(rounds: Iterable<Round>, maxTokens: number, ranks: number) {
  const fullest: BatchCounts = { tokens: 1, scored: 1, examples: 1 };
  const steps: number[] = [];
  for (const { facts, members, step } of rounds) {
    const lengths = members.map((i) => facts.computedTokens[i]!);
    const where = (i: number) => facts.where(members[i]!);
    const packed = packRanks(lengths, { maxTokens, ranks, where });
    if (step) steps.push(packed[0]!.length);
    for (const batch of packed.flat()) {
      const sum = (of: (member: number) => number) => batch.reduce((total, i) => total + of(i), 0);
      fullest.tokens = Math.max(
        fullest.tokens,
        sum((i) => lengths[i]!),
      );
      fullest.scored = Math.max(
        fullest.scored,
        sum((i) => facts.scoredTokens[members[i]!]!),
      );
      fullest.examples = Math.max(fullest.examples, batch.length);
    }
  }
  const mean = steps.reduce((total, slots) => total + slots, 0) / Math.max(1, steps.length);
  const most = steps.reduce((most, slots) => Math.max(most, slots), 0);
  return { fullest, slots: { mean, most } };
}

function evalRound(ranks: number): number {
  return EVAL_EXAMPLES * ranks;
}

function memoryLines(
  config: Config,
  shape: ModelShape,
  limits: BatchLimits,
  dataBytes: number,
  cacheRows: number,
): MemoryLine[] {
  const dtype: DType = config.bf16 ? "bf16" : "f32";
  const parameters = parameterCount(shape);
  const totals = { weight: 0, master: 0, moments: 0, grad: 0 };
  for (const block of modelBlocks(shape)) {
    const bytes = flatBytes(block, dtype, true);
    for (const kind of Object.keys(totals) as (keyof typeof totals)[]) totals[kind] += bytes[kind];
  }
  const state = (name: string, type: string, bytes: number): MemoryLine => ({
    lifetime: "model and optimizer",
    name,
    dtype: type,
    shape: [parameters],
    bytes,
  });
  const mode = { training: true, checkpointing: config.gradientCheckpointing };
  const buffers = [
    ...passBuffers(shape, dtype, limits, mode),
    ...optimizerBuffers(shape.numLayers + 1),
  ];
  const host = (name: string, bytes: number): MemoryLine => ({
    lifetime: "process",
    name,
    dtype: "",
    shape: [],
    bytes,
  });
  return [
    state("weights", dtype, totals.weight),
    ...(totals.master > 0 ? [state("master weights", "f32", totals.master)] : []),
    state("gradients", "f32", totals.grad),
    state("Adam moments", "f32", totals.moments),
    ...mergeLayers(buffers),
    ...(cacheRows > 0 ? [cacheLine(shape, dtype, limits, cacheRows)] : []),
    host("Node.js, libraries and JavaScript heap", PROCESS_BYTES),
    host("tokenized data", dataBytes),
    host("staging for loading and saving", 2 * Math.min(STAGING_BYTES, 4 * largestTensor(shape))),
  ];
}

/** Keys and values of the prompts that are answered at evaluations. */
function cacheLine(shape: ModelShape, dtype: DType, limits: BatchLimits, rows: number): MemoryLine {
  return {
    lifetime: "samples",
    name: "key/value cache",
    dtype,
    shape: [2, shape.numLayers, rows, shape.numKvHeads * shape.headDim],
    bytes: kvCacheBytes(shape, dtype, rows, limits.tokens),
  };
}

/** Elements of the largest tensor that is loaded or saved. */
function largestTensor(shape: ModelShape): number {
  const sizes = modelBlocks(shape).flatMap((block) =>
    block.parameters.map((p) => elementCount(p.shape)),
  );
  return Math.max(...sizes);
}

/** One line for the buffers that every layer has. */
function mergeLayers(buffers: readonly BufferSpec[]): MemoryLine[] {
  const lines = new Map<string, MemoryLine & { count: number }>();
  for (const { lifetime, name, dtype, shape } of buffers) {
    const merged = name.replace(/^layer\.\d+\./, "layers.");
    const bytes = Math.ceil((elementCount(shape) * (dtype === "bf16" ? 2 : 4)) / 64) * 64;
    const before = lines.get(merged);
    const count = (before?.count ?? 0) + 1;
    const line = {
      lifetime,
      name: merged,
      dtype,
      shape,
      bytes: (before?.bytes ?? 0) + bytes,
      count,
    };
    lines.set(merged, line);
  }
  return [...lines.values()].map(({ count, ...line }) =>
    count === 1 ? line : { ...line, shape: [count, ...line.shape] },
  );
}

/** A memory and the lines of a plan that lie there. */
interface MemoryLimit {
  readonly lines: readonly MemoryLine[];
  readonly needed: number;
  /** "85% of this machine's 16.00 GB". */
  readonly allowed: string;
  readonly fits: boolean;
}

function memoryLimits(plan: RunPlan, machine: number, device: number | undefined): MemoryLimit[] {
  const limit = (lines: readonly MemoryLine[], share: number, bytes: number, whose: string) => {
    const needed = lines.reduce((sum, line) => sum + line.bytes, 0);
    const allowed = `${Math.round(100 * share)}% of ${whose} ${gigabytes(bytes)}`;
    return { lines, needed, allowed, fits: needed <= share * bytes };
  };
  if (device === undefined) return [limit(plan.lines, USABLE, machine, "this machine's")];
  const ofProcess = (line: MemoryLine) => line.lifetime === "process";
  const own = plan.lines.filter((line) => !ofProcess(line));
  return [
    limit(own, GPU_USABLE, device, "the device's free"),
    limit(plan.lines.filter(ofProcess), USABLE, machine, "this machine's"),
  ];
}

function doesNotFit({ lines, needed, allowed }: MemoryLimit, config: Config): MemoryError {
  const remedies = [
    ...(config.gradientCheckpointing ? [] : ["gradient_checkpointing: true"]),
    ...(config.bf16 ? [] : ["bf16: true"]),
    "a smaller max_length or max_tokens_per_micro_batch",
  ];
  return new MemoryError(
    `the run needs ${gigabytes(needed)}, and ${allowed} may be used; largest: ${largestLines(lines)}`,
    { hint: `try ${remedies.join(", ")}` },
  );
}

/** What a plan takes most memory for, as a message names it. */
export function largestLines(lines: readonly MemoryLine[]): string {
  return [...lines]
    .sort((a, b) => b.bytes - a.bytes)
    .slice(0, 5)
    .map((line) => `${line.name} ${gigabytes(line.bytes)}`)
    .join(", ");
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
