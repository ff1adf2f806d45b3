import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { STAGING_BYTES } from "../checkpoint/weights.js";
import type { Config } from "../config/schema.js";
import { MemoryError } from "../errors.js";
import { type BlockSpec, familyOf, type ModelShape } from "../model/index.js";
import { type DType, elementCount } from "../native/index.js";
import { storeBytes, type ZeroStage } from "../parallel/layout.js";
import { type BatchLimits, type BufferSpec, kvCacheBytes, passBuffers } from "./buffers.js";
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

/**
 * Resident memory of Node.js with the addon, oneDNN's generated code and the JavaScript heap of a run,
 * measured on Node 20 (README, "Memory").
 */
const PROCESS_BYTES = 96e6;
/** Share of the machine's memory that a plan may fill. */
const USABLE = 0.85;
const GPU_USABLE = 0.92;

/** Memory that a plan has to fit into, in bytes. */
export interface AvailableMemory {
  /** Of the machine, or of the container. Default: what this process finds. */
  readonly machine?: number | undefined;
  /** Free on a device with memory of its own, where all but the lines of the process then lie. */
  readonly device?: number | undefined;
}

/** Blocks of the model in the store's order: layers, then the edge. */
export function modelBlocks(shape: ModelShape): BlockSpec[] {
  const family = familyOf(shape);
  const layers = Array.from({ length: shape.numLayers }, (_, l) => family.block(shape, l));
  return [...layers, family.edge(shape)];
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

/** What the memory of a rank depends on besides recipe and model. */
export interface MemoryFacts {
  readonly stage: ZeroStage;
  readonly size: number;
  readonly limits: BatchLimits;
  /** Of the tokenized data. */
  readonly dataBytes: number;
  /** Rows of the key/value cache for answers at evaluations; 0: none. */
  readonly cacheRows: number;
  /** The device has memory of its own: there the optimizer's state can move to the host's. */
  readonly ownMemory: boolean;
}

/** The memory table of one rank. */
export function memoryLines(config: Config, shape: ModelShape, facts: MemoryFacts): MemoryLine[] {
  const { limits, dataBytes, cacheRows } = facts;
  const dtype: DType = config.bf16 ? "bf16" : "f32";
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
    ...storeLines(config, shape, facts),
    ...mergeLayers(buffers),
    ...(cacheRows > 0 ? [cacheLine(shape, dtype, limits, cacheRows)] : []),
    host("Node.js, libraries and JavaScript heap", PROCESS_BYTES),
    host("tokenized data", dataBytes),
    host("staging for loading and saving", 2 * Math.min(STAGING_BYTES, 4 * largestTensor(shape))),
  ];
}

/** Parameters, gradients and optimizer state of one rank, by kind. */
export function storeLines(
  config: Config,
  shape: ModelShape,
  { stage, size, ownMemory }: Pick<MemoryFacts, "stage" | "size" | "ownMemory">,
): MemoryLine[] {
  const dtype: DType = config.bf16 ? "bf16" : "f32";
  const offload = ownMemory && config.offloadOptimizer === "cpu";
  const options = { stage, size, training: true, offload };
  return storeBytes(modelBlocks(shape), dtype, options).map((line) => ({
    lifetime: line.host ? "process" : "model and optimizer",
    name: line.name,
    dtype: line.dtype,
    shape: [line.elements],
    bytes: line.bytes,
  }));
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
export interface MemoryLimit {
  readonly lines: readonly MemoryLine[];
  readonly needed: number;
  /** "85% of this machine's 16.00 GB". */
  readonly allowed: string;
  readonly fits: boolean;
}

/** What a plan has to fit into: the share of the machine that a rank has, or a device and that share. */
export function memoryLimits(
  lines: readonly MemoryLine[],
  { machine = machineMemory(), device }: AvailableMemory,
  localSize: number,
): MemoryLimit[] {
  const limit = (held: readonly MemoryLine[], share: number, bytes: number, whose: string) => {
    const needed = held.reduce((sum, line) => sum + line.bytes, 0);
    const allowed = `${Math.round(100 * share)}% of ${whose} ${gigabytes(bytes)}`;
    return { lines: held, needed, allowed, fits: needed <= share * bytes };
  };
  const whose =
    localSize > 1 ? `this machine's share for one of ${localSize} ranks,` : "this machine's";
  const part = machine / localSize;
  if (device === undefined) return [limit(lines, USABLE, part, whose)];
  const ofProcess = (line: MemoryLine) => line.lifetime === "process";
  return [
    limit(
      lines.filter((line) => !ofProcess(line)),
      GPU_USABLE,
      device,
      "the device's free",
    ),
    limit(lines.filter(ofProcess), USABLE, part, whose),
  ];
}

/** The error of a run that does not fit, with the largest lines and what to try. */
export function doesNotFit(
  { lines, needed, allowed }: MemoryLimit,
  config: Config,
  size: number,
  ownMemory: boolean,
): MemoryError {
  const offload = ownMemory && config.offloadOptimizer === "none";
  const remedies = [
    ...(config.gradientCheckpointing ? [] : ["gradient_checkpointing: true"]),
    ...(config.bf16 ? [] : ["bf16: true"]),
    ...(size > 1 && config.zeroStage < 3 ? [`zero_stage: ${config.zeroStage + 1}`] : []),
    ...(offload ? ["offload_optimizer: cpu"] : []),
    "a smaller max_length or max_tokens_per_micro_batch",
    ...(size > 1 ? ["more ranks on more machines"] : []),
  ];
  const what = size > 1 ? "a rank of the run" : "the run";
  return new MemoryError(
    `${what} needs ${gigabytes(needed)}, and ${allowed} may be used; largest: ${largestLines(lines)}`,
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
