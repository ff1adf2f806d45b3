import path from "node:path";
import { pathToFileURL } from "node:url";
import type { Device } from "#src/native/index.js";
import { root } from "../support/paths.js";

/** The parts of bench/lib that the tests use; the files themselves are plain JavaScript. */
export interface Lengths {
  mean: number;
  least: number;
  most: number;
}

export interface BenchModel {
  name: string;
  hiddenSize: number;
  numLayers: number;
  numHeads: number;
  numKvHeads: number;
  intermediateSize: number;
  vocabSize: number;
  tied: boolean;
  prompt: Lengths;
  response: Lengths;
  batch: number;
  accumulation: number;
  maxLength: number;
  dtype: "bf16" | "f32";
}

export interface Pair {
  prompt: number[];
  chosen: number[];
  rejected: number[];
}

export interface Spread {
  median: number;
  min: number;
  max: number;
  n: number;
}

export interface OpBench {
  op: string;
  sizes: string;
  bytes: number;
  flops?: number;
}

interface Modules {
  "models.mjs": {
    models: Record<string, BenchModel>;
    configJson(model: BenchModel): Record<string, unknown>;
    pairsPerStep(model: BenchModel): number;
  };
  "pairs.mjs": {
    SIGMA: number;
    makePairs(model: BenchModel, count: number, seed: number): Pair[];
    countTokens(pairs: readonly Pair[]): Record<"pairs" | "real" | "computed" | "scored", number>;
    tokenizedRow(pair: Pair): Record<string, number[]>;
  };
  "flops.mjs": {
    visibleKeys(pair: Pair, window?: number): number;
    parameterCount(model: BenchModel): number;
    stepFlops(
      model: BenchModel,
      pairs: readonly Pair[],
    ): Record<"linear" | "head" | "attention" | "total", number>;
  };
  "model-files.mjs": { writeModel(model: BenchModel, folder: string): void };
  "statistics.mjs": {
    median(values: readonly number[]): number;
    spread(values: readonly number[]): Spread;
    showSpread(s: Spread, digits?: number): string;
  };
  "op-cases.mjs": { opBenches(model: BenchModel, pairs: readonly Pair[]): OpBench[] };
  "time-ops.mjs": {
    timeBench(
      device: Device,
      bench: OpBench,
      limits: { least: number; budget: number },
    ): Promise<number[]>;
    createRoofs(
      device: Device,
      dtype: "f32" | "bf16",
      footprints: readonly number[],
      largest: number,
    ): {
      measure(): Promise<void>;
      raiseFlops(rate: number): void;
      readonly flops: number;
      bytesPerSecond(bytes: number): number;
    };
  };
  "report.mjs": {
    summarize(
      model: BenchModel,
      pairs: readonly Pair[],
      own: readonly unknown[],
      peers: Readonly<Record<string, readonly unknown[]>>,
    ): {
      own: Record<string, number> & { stepSeconds: Spread };
      profile: { op: string; share: number }[];
      peers: { variant: string; ratio: Spread; pairsPerSecond: number }[];
    };
  };
}

/** Imports one of the benchmark's files. */
export async function benchModule<Name extends keyof Modules>(name: Name): Promise<Modules[Name]> {
  return (await import(pathToFileURL(path.join(root, "bench", "lib", name)).href)) as Modules[Name];
}
