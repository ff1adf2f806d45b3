import type { Arena, DType, Stream, Tensor } from "../native/index.js";
import {
  type BlockLayout,
  blockLayout,
  type FlatSpec,
  parameterViews,
  storeBytes,
} from "./layout.js";
import type { BlockTensors, FlatBlock, ModelStore, ParamStore, StateKind } from "./store.js";

/** Bytes a resident store takes from its arena for one block, by kind of state. */
export function flatBytes(spec: FlatSpec, dtype: DType, training: boolean) {
  const options = { stage: 0, size: 1, training, offload: false } as const;
  const lines = storeBytes([spec], dtype, options);
  const bytes = (name: string) => lines.find((line) => line.name === name)?.bytes ?? 0;
  return {
    weight: bytes("weights"),
    master: bytes("master weights"),
    moments: bytes("Adam moments"),
    grad: bytes("gradients"),
  };
}

/** All parameters in the memory of one device. */
export class ResidentStore implements ModelStore {
  readonly stage = 0;
  readonly rank = 0;
  readonly size = 1;
  readonly blocks: readonly FlatBlock[];
  readonly layouts: readonly BlockLayout[];
  readonly stateStream: Stream;
  readonly #stream: Stream;
  readonly #weights: readonly BlockTensors[];
  readonly #gradients: readonly BlockTensors[];
  readonly #masters: readonly BlockTensors[];

  /** @param training false: weights only. */
  constructor(
    stream: Stream,
    arena: Arena,
    specs: readonly FlatSpec[],
    dtype: DType,
    training: boolean,
  ) {
    this.#stream = stream;
    this.stateStream = stream;
    this.layouts = specs.map((spec) => blockLayout(spec, this));
    this.blocks = this.layouts.map((layout) => flatBlock(arena, layout, dtype, training));
    const views = (of: (block: FlatBlock) => Tensor) =>
      this.blocks.map((block, b) => parameterViews(this.layouts[b]!, of(block)));
    this.#weights = views(({ weight }) => weight);
    this.#masters = training && dtype !== "f32" ? views(({ master }) => master) : this.#weights;
    this.#gradients = training ? views(({ grad }) => grad) : [];
  }

  prefetch(): void {}
  release(): void {}
  reduce(): void {}
  beginPass(): void {}
  finishGradients(): void {}
  sumPartials(): void {}
  updated(): void {}
  dispose(): void {}

  beginStep(): void {
    for (const { grad } of this.blocks) this.#stream.fill(grad, 0);
  }

  acquire(block: number): BlockTensors {
    return this.#weights[block]!;
  }

  gradients(block: number): BlockTensors {
    return this.#gradients[block]!;
  }

  local(): ParamStore {
    return this;
  }

  shard(kind: StateKind, block: number): Tensor {
    return this.blocks[block]![kind];
  }

  gatherMasters(block: number): Promise<BlockTensors> {
    return Promise.resolve(this.#masters[block]!);
  }

  shareWeights(): Promise<void> {
    for (const { weight, master } of this.blocks) {
      if (weight !== master) this.#stream.convert(weight, master);
    }
    return Promise.resolve();
  }
}

function flatBlock(
  arena: Arena,
  { elements, decayed }: BlockLayout,
  dtype: DType,
  training: boolean,
): FlatBlock {
  const weight = arena.tensor(dtype, [elements]);
  const state = () => (training ? arena.tensor("f32", [elements]) : weight);
  const master = dtype === "f32" ? weight : state();
  return { weight, master, m: state(), v: state(), grad: state(), decayed };
}
