import { alignedBytes, type DType, elementCount, type Tensor } from "../native/index.js";
import type { BlockTensors } from "./store.js";

/** Names and shapes of a block's parameters: matrices first, then those without weight decay. */
export interface FlatSpec {
  readonly name: string;
  readonly parameters: readonly {
    readonly name: string;
    readonly shape: readonly number[];
    readonly decay: boolean;
  }[];
}

/** What ranks share among them: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too. */
export type ZeroStage = 0 | 1 | 2 | 3;

/** Elements `[begin, end)` of a flat buffer. */
export interface Range {
  readonly begin: number;
  readonly end: number;
}

/** Where the elements of a block lie in its flat buffer, and which of them belong to this rank. */
export interface BlockLayout {
  readonly spec: FlatSpec;
  /** Length of the flat buffer: a multiple of ranks · 32 elements. */
  readonly elements: number;
  /** Elements before this one get weight decay. */
  readonly decayed: number;
  /** First element of each parameter, by name. */
  readonly offsets: Readonly<Record<string, number>>;
  /** The part this rank answers for: the parts of all ranks make up the buffer. */
  readonly own: Range;
  /** The part whose optimizer state this rank keeps: its own, or everything in stage 0. */
  readonly held: Range;
}

/** A rank's place among the ranks, and how much they share. */
export interface Sharding {
  readonly stage: ZeroStage;
  readonly rank: number;
  readonly size: number;
}

const PARAMETER_ALIGNMENT = 32; // elements: a cache line of bf16, two of f32

/** Elements of a block's flat buffer in one process, padding included. */
export function flatElements(spec: FlatSpec): number {
  return spec.parameters.reduce((sum, { shape }) => sum + padded(shape), 0);
}

/** Elements of a block's flat buffer that `size` ranks can cut into equal parts. */
export function shardedElements(spec: FlatSpec, size: number): number {
  const unit = size * PARAMETER_ALIGNMENT;
  return Math.ceil(flatElements(spec) / unit) * unit;
}

/** Where everything of a block lies. */
export function blockLayout(spec: FlatSpec, { stage, rank, size }: Sharding): BlockLayout {
  const elements = shardedElements(spec, size);
  const part = elements / size;
  const own = { begin: rank * part, end: (rank + 1) * part };
  const offsets: Record<string, number> = {};
  let offset = 0;
  let decayed = 0;
  for (const { name, shape, decay } of spec.parameters) {
    offsets[name] = offset;
    offset += padded(shape);
    if (decay) decayed = offset;
  }
  const held = stage === 0 ? { begin: 0, end: elements } : own;
  return { spec, elements, decayed, offsets, own, held };
}

/** Views of a block's parameters in a flat buffer of all its elements. */
export function parameterViews(layout: BlockLayout, flat: Tensor): BlockTensors {
  const views: Record<string, Tensor> = {};
  const elementBytes = flat.bytes / Math.max(1, flat.size);
  for (const { name, shape } of layout.spec.parameters) {
    views[name] = flat.view(shape, { byteOffset: layout.offsets[name]! * elementBytes });
  }
  return views;
}

/** One kind of state that a store keeps: a line of the memory table. */
export interface StoreLine {
  readonly name:
    | "weights"
    | "gathered weights"
    | "master weights"
    | "gradients"
    | "gradients being summed"
    | "Adam moments"
    | "update in host memory"
    | "copies between device and host";
  readonly dtype: DType;
  readonly elements: number;
  readonly bytes: number;
  /** In host memory, beside a device with memory of its own. */
  readonly host: boolean;
}

/** How a store is asked for, as far as its size depends on it. */
export interface StoreOptions {
  readonly stage: ZeroStage;
  readonly size: number;
  /** false: weights only. */
  readonly training: boolean;
  /** The optimizer's state lies in host memory; never on the CPU device. */
  readonly offload: boolean;
}

/**
 * The memory of one rank's store by kind of state; the store's arenas are the sums of these lines. `specs`:
 * layers, then the edge.
 */
export function storeBytes(
  specs: readonly FlatSpec[],
  dtype: DType,
  { stage, size, training, offload }: StoreOptions,
): StoreLine[] {
  const lines: StoreLine[] = [];
  const add = (name: StoreLine["name"], type: DType, counts: readonly number[], host = false) => {
    const bytes = counts.reduce((sum, count) => sum + alignedBytes(type, [count]), 0);
    const elements = counts.reduce((sum, count) => sum + count, 0);
    if (bytes > 0) lines.push({ name, dtype: type, elements, bytes, host });
  };
  const shared = size > 1 ? stage : 0;
  const full = specs.map((spec) => shardedElements(spec, size));
  const parts = full.map((elements) => elements / size);
  const last = specs.length - 1;
  const layersShared = (from: ZeroStage) =>
    shared >= from ? full.map((elements, b) => (b === last ? elements : parts[b]!)) : full;
  const slots = slotElements(full.slice(0, last));

  add("weights", dtype, layersShared(3));
  if (shared === 3) add("gathered weights", dtype, slots);
  if (!training) return lines;
  const held = shared >= 1 ? parts : full;
  if (dtype !== "f32" || offload) add("master weights", "f32", held, offload);
  add("gradients", "f32", layersShared(2));
  if (shared >= 2) add("gradients being summed", "f32", slots);
  add("Adam moments", "f32", [...held, ...held], offload);
  if (offload) {
    const { arena, arrays } = offloadElements(Math.max(...held), dtype);
    const host = (name: StoreLine["name"], counts: { f32: number; weight: number }) => {
      const bytes = alignedBytes("f32", [counts.f32]) + alignedBytes(dtype, [counts.weight]);
      lines.push({ name, dtype: "f32", elements: counts.f32 + counts.weight, bytes, host: true });
    };
    host("update in host memory", arena);
    host("copies between device and host", arrays);
  }
  return lines;
}

/**
 * What an update in host memory takes besides the optimizer's state: a gradient and rounded weights of its largest
 * part of a block, and the arrays they travel in, two of them for gradients.
 */
export function offloadElements(largest: number, dtype: DType) {
  return {
    arena: { f32: largest, weight: dtype === "f32" ? 0 : largest },
    arrays: { f32: 2 * largest, weight: largest },
  };
}

/** Elements of the slots that layers take turns in: layer l has slot l mod 2. */
export function slotElements(layers: readonly number[]): number[] {
  return [0, 1].map((slot) => Math.max(0, ...layers.filter((_, l) => l % 2 === slot)));
}

function padded(shape: readonly number[]): number {
  return Math.ceil(elementCount(shape) / PARAMETER_ALIGNMENT) * PARAMETER_ALIGNMENT;
}
