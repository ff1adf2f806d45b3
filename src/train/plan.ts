import type { Config } from "../config/schema.js";
import { createOrder, stepCount, stepsPerEpoch } from "../data/order.js";
import { packRanks } from "../data/pack-ranks.js";
import type { MemoryError } from "../errors.js";
import { losses } from "../loss/index.js";
import { checkPositions, type ModelShape, parameterCount } from "../model/index.js";
import { NORM_PARTIALS } from "../optim/adamw.js";
import { scheduleKwargs, warmupLength } from "../optim/schedule.js";
import type { ZeroStage } from "../parallel/layout.js";
import type { VolumeOptions } from "../parallel/volume.js";
import { type BatchLimits, tokenBucket } from "./buffers.js";
import type { ExampleSet } from "./examples.js";
import {
  type AvailableMemory,
  doesNotFit,
  type MemoryLine,
  memoryLimits,
  memoryLines,
  modelBlocks,
  storeLines,
} from "./plan-memory.js";
import { chooseSamples, sampleBatches } from "./sample-prompts.js";

export { type AvailableMemory, largestLines, type MemoryLine, modelBlocks } from "./plan-memory.js";

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
  /** What the ranks share among them; 0 in a run of one process. */
  readonly zeroStage: ZeroStage;
  /** The same micro-batches in every stage. */
  readonly stages: readonly StageMemory[];
  /** Pairs or sequences of an optimizer step, over all ranks. */
  readonly examplesPerStep: number;
  /** Micro-batches of a rank in an optimizer step, empty ones included. */
  readonly slots: {
    /** Over the steps of the run. */
    readonly mean: number;
    /** Of any of them. */
    readonly most: number;
  };
  /** Optimizer steps of one pass over the data. */
  readonly stepsPerEpoch: number;
  /** Optimizer steps of the run. */
  readonly totalSteps: number;
  /** Of these, steps of the warmup. */
  readonly warmupSteps: number;
}

/** Memory of one rank in one ZeRO stage. */
export interface StageMemory {
  /** The stage. */
  readonly stage: ZeroStage;
  /** Parameters, gradients and optimizer state. */
  readonly lines: readonly MemoryLine[];
  /** These, and everything else that a rank holds. */
  readonly totalBytes: number;
  /** Whether that is there. */
  readonly fits: boolean;
}

/** What the plan needs to know of the data. */
export type DataFacts = Pick<
  ExampleSet,
  "count" | "bytes" | "computedTokens" | "scoredTokens" | "longestSequence" | "where" | "parts"
>;

/** Tokens of a micro-batch beyond which GEMMs on a CPU gain nothing. */
const ENOUGH_TOKENS = 2048;
/** Largest logits workspace taken by default. */
const LOGITS_BYTES = 128 << 20;
/** Examples evaluated per round trip and rank, at least. */
const EVAL_EXAMPLES = 64;
/** The same of a GPU: its tokens and its logits workspace. */
export const GPU_ENOUGH_TOKENS = 16384;
const GPU_LOGITS_BYTES = 1 << 30;

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
  memory: AvailableMemory = {},
  { ranks = ONE_RANK, tokens: keep, examplesPerStep: kept }: PlanOptions = {},
): DraftPlan {
  const ownMemory = memory.device !== undefined;
  const [enoughTokens, logitsBytes] = !ownMemory
    ? [ENOUGH_TOKENS, LOGITS_BYTES]
    : [GPU_ENOUGH_TOKENS, GPU_LOGITS_BYTES];
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
  const limitsOf = (lines: readonly MemoryLine[]) => memoryLimits(lines, memory, ranks.localSize);
  const fits = (lines: readonly MemoryLine[]) => limitsOf(lines).every(({ fits }) => fits);
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
    const facts = {
      stage: ranks.size > 1 ? config.zeroStage : 0,
      size: ranks.size,
      limits,
      dataBytes: train.bytes + test.bytes,
      cacheRows: rows,
      ownMemory,
    } as const;
    const lines = memoryLines(config, shape, facts);
    return {
      parameters: parameterCount(shape),
      lines,
      totalBytes: sumBytes(lines),
      limits,
      ranks,
      zeroStage: facts.stage,
      stages: allStages(lines, (stage) => storeLines(config, shape, { ...facts, stage }), fits),
      examplesPerStep,
      slots,
      stepsPerEpoch: stepsPerEpoch(steps),
      totalSteps,
      warmupSteps: warmupLength(scheduleOptions(config, totalSteps)),
    };
  };
  let plan: RunPlan;
  const wanted = keep ?? config.maxTokensPerMicroBatch;
  if (wanted) {
    plan = withTokens(wanted);
  } else {
    let tokens = Math.max(longest, enoughTokens);
    plan = withTokens(tokens);
    while (!fits(plan.lines) && tokens > longest) {
      tokens = Math.max(longest, Math.floor(tokens * 0.8));
      plan = withTokens(tokens);
    }
  }
  const broken = limitsOf(plan.lines).find(({ fits }) => !fits);
  return { plan, shortage: broken && doesNotFit(broken, config, ranks.size, ownMemory) };
}

/** The table with the lines of parameters, gradients and optimizer state of every stage. */
function allStages(
  lines: readonly MemoryLine[],
  storeOf: (stage: ZeroStage) => readonly MemoryLine[],
  fits: (lines: readonly MemoryLine[]) => boolean,
): StageMemory[] {
  const names = new Set(([0, 1, 2, 3] as const).flatMap(storeOf).map(({ name }) => name));
  const rest = lines.filter(({ name }) => !names.has(name));
  return ([0, 1, 2, 3] as const).map((stage) => {
    const own = storeOf(stage);
    const all = [...own, ...rest];
    return { stage, lines: own, totalBytes: sumBytes(all), fits: fits(all) };
  });
}

function sumBytes(lines: readonly MemoryLine[]): number {
  return lines.reduce((sum, line) => sum + line.bytes, 0);
}

/** Pairs or sequences of an optimizer step on `size` ranks, as the recipe says. */
export function recipeExamplesPerStep(config: Config, size: number): number {
  return config.perDeviceTrainBatchSize * config.gradientAccumulationSteps * size;
}

/** What decides how much a rank of the run sends in its fullest step. */
export function volumeOptions(
  config: Config,
  shape: ModelShape,
  { zeroStage, ranks, slots, limits, examplesPerStep }: RunPlan,
): VolumeOptions {
  const blocks = modelBlocks(shape);
  return {
    stage: zeroStage,
    size: ranks.size,
    blocks,
    dtype: config.bf16 ? "bf16" : "f32",
    slots: slots.most,
    normPartials: blocks.length * NORM_PARTIALS,
    responses: examplesPerStep * (limits.pairs ? 2 : 1),
  };
}

/** The schedule of a run of `totalSteps` steps. */
export function scheduleOptions(config: Config, totalSteps: number) {
  const { lrSchedulerType: type, learningRate, warmupSteps, warmupRatio } = config;
  const shape = scheduleKwargs(config.lrSchedulerKwargs, learningRate);
  return { type, learningRate, warmupSteps, warmupRatio, totalSteps, ...shape };
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
