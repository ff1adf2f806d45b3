import type { Arena, DType, Stream, Tensor } from "../native/index.js";
import { type HostState, readMaster, roundMaster } from "./host-state.js";
import {
  type BlockLayout,
  blockLayout,
  type FlatSpec,
  parameterViews,
  storeBytes,
} from "./layout.js";
import type { BlockTensors, FlatBlock, LocalWalk, ModelStore, StateKind } from "./store.js";

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
  readonly host: HostState | undefined;
  readonly #stream: Stream;
  readonly #weights: readonly BlockTensors[];
  readonly #gradients: readonly BlockTensors[];
  readonly #masters: readonly BlockTensors[];

  /**
   * @param training false: weights only.
   * @param host takes the optimizer's state, which then is in host memory.
   */
  constructor(
    stream: Stream,
    arena: Arena,
    specs: readonly FlatSpec[],
    dtype: DType,
    training: boolean,
    host?: HostState,
  ) {
    this.#stream = stream;
    this.host = host;
    this.layouts = specs.map((spec) => blockLayout(spec, this));
    this.blocks = this.layouts.map((layout) =>
      flatBlock(layout, dtype, training, arena, host?.arena),
    );
    const views = (of: (block: FlatBlock) => Tensor) =>
      this.blocks.map((block, b) => parameterViews(this.layouts[b]!, of(block)));
    this.#weights = views(({ weight }) => weight);
    const separate = training && dtype !== "f32" && !host;
    this.#masters = separate ? views(({ master }) => master) : this.#weights;
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

  local(stream: Stream): LocalWalk {
    for (const { grad } of this.blocks) stream.fill(grad, 0);
    return {
      lockstep: false,
      prefetch: () => {},
      acquire: (block) => this.acquire(block),
      release: () => {},
      gradients: (block) => this.gradients(block),
      reduce: () => {},
      end: () => {},
    };
  }

  get stateStream(): Stream {
    return this.host?.stream ?? this.#stream;
  }

  shard(kind: StateKind, block: number): Tensor {
    return this.blocks[block]![kind];
  }

  async gatherMasters(block: number): Promise<BlockTensors> {
    if (!this.host) return this.#masters[block]!;
    const { grad, master } = this.blocks[block]!;
    await readMaster(this.host, this.#stream, grad, master);
    return this.#gradients[block]!;
  }

  async shareWeights(): Promise<void> {
    for (const { weight, master } of this.blocks) {
      if (this.host) await roundMaster(this.host, this.#stream, weight, master);
      else if (weight !== master) this.#stream.convert(weight, master);
    }
  }
}

function flatBlock(
  { elements, decayed }: BlockLayout,
  dtype: DType,
  training: boolean,
  arena: Arena,
  host = arena,
): FlatBlock {
  const weight = arena.tensor(dtype, [elements]);
  const state = () => (training ? host.tensor("f32", [elements]) : weight);
  const master = dtype === "f32" && host === arena ? weight : state();
  const [m, v] = [state(), state()];
  const grad = training ? arena.tensor("f32", [elements]) : weight;
  return { weight, master, m, v, grad, decayed };
}
