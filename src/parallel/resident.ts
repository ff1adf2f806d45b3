import {
  type Arena,
  alignedBytes,
  type DType,
  elementCount,
  type Tensor,
} from "../native/index.js";
import type { BlockTensors, ParamStore } from "./store.js";

/** Names and shapes of a block's parameters: matrices first, then those without weight decay. */
export interface FlatSpec {
  readonly name: string;
  readonly parameters: readonly {
    readonly name: string;
    readonly shape: readonly number[];
    readonly decay: boolean;
  }[];
}

/** A block as one flat buffer per kind of state; parameters start at multiples of 32 elements. */
export interface FlatBlock {
  readonly spec: FlatSpec;
  readonly weight: Tensor;
  readonly master: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
  readonly grad: Tensor;
  /** Elements before this one get weight decay. */
  readonly decayed: number;
}

const PARAMETER_ALIGNMENT = 32; // elements: a cache line of bf16, two of f32

/** Elements of a block's flat buffer, padding included. */
export function flatElements(spec: FlatSpec): number {
  return spec.parameters.reduce((sum, { shape }) => sum + padded(shape), 0);
}

/** Bytes a resident store takes from its arena for one block, by kind of state. */
export function flatBytes(spec: FlatSpec, dtype: DType, training: boolean) {
  const n = flatElements(spec);
  const f32 = training ? alignedBytes("f32", [n]) : 0;
  return {
    weight: alignedBytes(dtype, [n]),
    master: dtype === "f32" ? 0 : f32,
    moments: 2 * f32,
    grad: f32,
  };
}

/** All parameters in the memory of one device. */
export class ResidentStore implements ParamStore {
  readonly blocks: readonly FlatBlock[];
  readonly #weights: readonly BlockTensors[];
  readonly #gradients: readonly BlockTensors[];
  readonly #masters: readonly BlockTensors[];
  readonly #moments: readonly { readonly m: BlockTensors; readonly v: BlockTensors }[];

  /** @param training false: weights only. */
  constructor(arena: Arena, specs: readonly FlatSpec[], dtype: DType, training: boolean) {
    this.blocks = specs.map((spec) => flatBlock(arena, spec, dtype, training));
    this.#weights = this.blocks.map((block) => tensors(block.spec, block.weight));
    const own = training && dtype !== "f32";
    this.#masters = own ? this.blocks.map((b) => tensors(b.spec, b.master)) : this.#weights;
    const moments = (block: FlatBlock) => ({
      m: tensors(block.spec, block.m),
      v: tensors(block.spec, block.v),
    });
    this.#moments = training ? this.blocks.map(moments) : [];
    this.#gradients = training ? this.blocks.map((block) => tensors(block.spec, block.grad)) : [];
  }

  prefetch(): void {}
  release(): void {}
  reduce(): void {}

  acquire(block: number): BlockTensors {
    return this.#weights[block]!;
  }

  gradients(block: number): BlockTensors {
    return this.#gradients[block]!;
  }

  /** The f32 weights that the optimizer updates; the weights themselves in an f32 run. */
  masters(block: number): BlockTensors {
    return this.#masters[block]!;
  }

  /** Adam's first and second moments, f32. */
  moments(block: number): { readonly m: BlockTensors; readonly v: BlockTensors } {
    return this.#moments[block]!;
  }
}

function flatBlock(arena: Arena, spec: FlatSpec, dtype: DType, training: boolean): FlatBlock {
  const n = flatElements(spec);
  const weight = arena.tensor(dtype, [n]);
  const state = () => (training ? arena.tensor("f32", [n]) : weight);
  const master = dtype === "f32" ? weight : state();
  const decayed = flatElements({ ...spec, parameters: spec.parameters.filter((p) => p.decay) });
  return { spec, weight, master, m: state(), v: state(), grad: state(), decayed };
}

function tensors(spec: FlatSpec, flat: Tensor): BlockTensors {
  const views: Record<string, Tensor> = {};
  const elementBytes = flat.bytes / Math.max(1, flat.size);
  let offset = 0;
  for (const { name, shape } of spec.parameters) {
    views[name] = flat.view(shape, { byteOffset: offset * elementBytes });
    offset += padded(shape);
  }
  return views;
}

function padded(shape: readonly number[]): number {
  return Math.ceil(elementCount(shape) / PARAMETER_ALIGNMENT) * PARAMETER_ALIGNMENT;
}
