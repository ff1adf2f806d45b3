import type { Arena, Communicator, Device, DType, Event, Stream, Tensor } from "../native/index.js";
import { type HostState, readMaster, roundMaster } from "./host-state.js";
import {
  type BlockLayout,
  blockLayout,
  type FlatSpec,
  parameterViews,
  slotElements,
  type ZeroStage,
} from "./layout.js";
import type { BlockTensors, FlatBlock, LocalWalk, ModelStore, StateKind } from "./store.js";

/** How ranks reach each other: a communicator and the stream that its operations run on. */
export interface Fabric {
  readonly comm: Communicator;
  readonly stream: Stream;
}

export interface ShardedOptions {
  readonly device: Device;
  /** The stream of the walk and of the update. */
  readonly stream: Stream;
  readonly fabric: Fabric;
  readonly stage: ZeroStage;
  /** Layers, then the edge. */
  readonly specs: readonly FlatSpec[];
  readonly dtype: DType;
  /** Holds what `storeBytes` says. */
  readonly arena: Arena;
  /** The optimizer's state, where it lies in host memory. */
  readonly host?: HostState | undefined;
}

/** Memory that layers take turns in: layer l has slot l mod 2. */
interface Slot {
  /** The layer whose weights are in the slot, or on their way there; -1: none that count. */
  holds: number;
  /** They are on their way, and the walk has not waited for them yet. */
  pending: boolean;
  /** The walk is done with what was in the slot, and the communicator has filled or emptied it. */
  readonly free: Event;
  readonly ready: Event;
}

/**
 * Parameters shared among ranks as in ZeRO [Rajbhandari et al. 2020, §5]. A block is one flat buffer that ranks cut
 * into equal parts; rank r updates part r. The walk is on one stream and all that ranks exchange on another; events
 * order the two, and neither waits for more than it needs:
 *
 *   stage  weights        gradients                     exchanged
 *   0      whole          whole                         gradients, all-reduced, in the last micro-batch
 *   1      whole          whole                         gradients, reduce-scattered, in the last micro-batch;
 *                                                       weights, all-gathered, block by block after their update
 *   2      whole          own part + 2 slots            gradients of layers in every micro-batch
 *   3      own part       own part + 2 slots            weights of layers, too, before each is computed with,
 *          + 2 slots                                    unless they are still in their slot
 *
 * The edge is whole in every stage: it opens and closes a walk, and a tied head needs it all the way.
 */
export class ShardedStore implements ModelStore {
  readonly stage: ZeroStage;
  readonly rank: number;
  readonly size: number;
  readonly blocks: readonly FlatBlock[];
  readonly layouts: readonly BlockLayout[];
  readonly host: HostState | undefined;
  readonly #comm: Communicator;
  readonly #commStream: Stream;
  #stream: Stream;
  readonly #edge: number;
  readonly #events: Event[] = [];

  /** What a walk computes with: whole weights, or their place in a slot. */
  readonly #weights: readonly BlockTensors[];
  readonly #wholeWeights: readonly Tensor[];
  readonly #wholeMasters: readonly BlockTensors[]; // in stage 0, on the device
  readonly #weightSlots: readonly Slot[];
  /** Weights of the block are on their way since its update. */
  readonly #pending: boolean[];
  readonly #gathered: readonly Event[];

  readonly #gradients: readonly BlockTensors[];
  readonly #wholeGradients: readonly Tensor[];
  /** Own parts of the whole gradients: where the sums over earlier micro-batches are put back. */
  readonly #ownGradients: readonly Tensor[];
  readonly #gradientSlots: readonly Slot[];

  /** What the walk has enqueued, for the communicator; what that has, for the walk. */
  readonly #computed: Event;
  readonly #exchanged: Event;
  #passes = 0;
  #last = true;

  constructor(options: ShardedOptions) {
    const { device, stream, fabric, specs, dtype, arena, host } = options;
    this.rank = fabric.comm.rank;
    this.size = fabric.comm.size;
    const stage = this.size > 1 ? options.stage : 0;
    this.stage = stage;
    this.host = host;
    this.#comm = fabric.comm;
    this.#commStream = fabric.stream;
    this.#stream = stream;
    this.#edge = specs.length - 1;
    this.layouts = specs.map((spec) => blockLayout(spec, this));
    const event = () => {
      const made = device.event();
      this.#events.push(made);
      return made;
    };
    const slot = (): Slot => ({ holds: -1, pending: false, free: event(), ready: event() });
    const inSlot = (from: ZeroStage, b: number) => stage >= from && b !== this.#edge;
    const layers = this.layouts.slice(0, -1).map(({ elements }) => elements);
    const slots = (type: DType) => slotElements(layers).map((n) => arena.tensor(type, [n]));
    const part = ({ held }: BlockLayout) => held.end - held.begin;
    const heldOf = (whole: Tensor, { held }: BlockLayout) =>
      stage === 0 ? whole : whole.slice(held.begin, held.end);

    const weightMemory = this.layouts.map((layout, b) =>
      arena.tensor(dtype, [inSlot(3, b) ? part(layout) : layout.elements]),
    );
    const weightSlots = stage === 3 ? slots(dtype) : [];
    this.#wholeWeights = this.layouts.map(({ elements }, b) =>
      inSlot(3, b) ? weightSlots[b % 2]!.slice(0, elements) : weightMemory[b]!,
    );
    const states = () =>
      this.layouts.map((layout) => (host?.arena ?? arena).tensor("f32", [part(layout)]));
    const weights = this.layouts.map((layout, b) =>
      inSlot(3, b) ? weightMemory[b]! : heldOf(weightMemory[b]!, layout),
    );
    const masters = dtype === "f32" && !host ? weights : states();
    const gradientMemory = this.layouts.map((layout, b) =>
      arena.tensor("f32", [inSlot(2, b) ? part(layout) : layout.elements]),
    );
    const gradientSlots = stage >= 2 ? slots("f32") : [];
    this.#wholeGradients = this.layouts.map(({ elements }, b) =>
      inSlot(2, b) ? gradientSlots[b % 2]!.slice(0, elements) : gradientMemory[b]!,
    );
    this.#ownGradients = this.layouts.map((layout, b) => heldOf(this.#wholeGradients[b]!, layout));
    this.#wholeMasters =
      stage === 0 && !host ? this.layouts.map((l, b) => parameterViews(l, masters[b]!)) : [];
    const [m, v] = [states(), states()];
    this.blocks = this.layouts.map((layout, b) => ({
      weight: weights[b]!,
      master: masters[b]!,
      m: m[b]!,
      v: v[b]!,
      grad: inSlot(2, b) ? gradientMemory[b]! : this.#ownGradients[b]!,
      decayed: Math.min(Math.max(0, layout.decayed - layout.held.begin), part(layout)),
    }));
    const views = (whole: readonly Tensor[]) =>
      this.layouts.map((layout, b) => parameterViews(layout, whole[b]!));
    this.#weights = views(this.#wholeWeights);
    this.#gradients = views(this.#wholeGradients);
    this.#weightSlots = weightSlots.map(slot);
    this.#gradientSlots = gradientSlots.map(slot);
    this.#gathered = this.layouts.map(event);
    this.#pending = this.layouts.map(() => false);
    this.#computed = event();
    this.#exchanged = event();
  }

  // ---- weights ---------------------------------------------------------------------------------------

  prefetch(block: number): void {
    const slot = this.#slotOf(this.#weightSlots, block);
    if (!slot || slot.holds === block) return;
    this.#commStream.wait(slot.free);
    this.#comm.allGather(this.#wholeWeights[block]!, this.blocks[block]!.weight);
    this.#commStream.record(slot.ready);
    slot.holds = block;
    slot.pending = true;
  }

  acquire(block: number): BlockTensors {
    const slot = this.#slotOf(this.#weightSlots, block);
    if (slot) {
      this.prefetch(block);
      if (slot.pending) this.#stream.wait(slot.ready);
      slot.pending = false;
    } else if (this.#pending[block]) {
      this.#stream.wait(this.#gathered[block]!);
      this.#pending[block] = false;
    }
    return this.#weights[block]!;
  }

  release(block: number): void {
    const slot = this.#slotOf(this.#weightSlots, block);
    if (slot) this.#stream.record(slot.free);
  }

  updated(block: number): void {
    if (this.stage === 0) return;
    this.#handOver();
    const slot = this.#slotOf(this.#weightSlots, block);
    if (slot) {
      if (slot.holds === block) slot.holds = -1; // what it holds is older than the update
      if (block < 2) this.prefetch(block); // where the next walk begins
      return;
    }
    this.#comm.allGather(this.#wholeWeights[block]!, this.blocks[block]!.weight);
    this.#commStream.record(this.#gathered[block]!);
    this.#pending[block] = true;
  }

  // ---- gradients -------------------------------------------------------------------------------------

  beginStep(): void {
    this.#passes = 0;
    this.#wholeGradients.forEach((whole, b) => {
      if (!this.#slotOf(this.#gradientSlots, b)) this.#stream.fill(whole, 0);
    });
  }

  beginPass(last: boolean): void {
    this.#passes++;
    this.#last = last;
  }

  gradients(block: number): BlockTensors {
    const slot = this.#slotOf(this.#gradientSlots, block);
    if (slot && slot.holds !== block) {
      this.#stream.wait(slot.ready); // what was in it is summed, and so is what is put back below
      this.#stream.fill(this.#wholeGradients[block]!, 0);
      const sums = this.blocks[block]!.grad;
      if (this.#passes > 1) this.#stream.convert(this.#ownGradients[block]!, sums);
      slot.holds = block;
    }
    return this.#gradients[block]!;
  }

  reduce(block: number): void {
    const slot = this.#slotOf(this.#gradientSlots, block);
    if (!slot && !this.#last) return;
    const whole = this.#wholeGradients[block]!;
    this.#handOver();
    if (this.stage === 0) this.#comm.allReduce(whole);
    else this.#comm.reduceScatter(this.blocks[block]!.grad, whole);
    if (!slot) return;
    this.#commStream.record(slot.ready);
    slot.holds = -1;
  }

  finishGradients(): void {
    this.#takeBack();
  }

  sumPartials(partials: Tensor): void {
    if (this.stage === 0) return; // whole gradients have the whole norm
    this.#handOver();
    this.#comm.allReduce(partials);
    this.#takeBack();
  }

  // ---- walks of one rank -----------------------------------------------------------------------------

  local(stream: Stream): LocalWalk {
    const before = this.#stream;
    this.#stream = stream;
    this.#takeBack(); // of the gradients that are to be overwritten
    this.#wholeGradients.forEach((whole, b) => {
      if (!this.#slotOf(this.#gradientSlots, b)) stream.fill(whole, 0);
    });
    return {
      lockstep: this.stage === 3,
      prefetch: (block) => this.prefetch(block),
      acquire: (block) => this.acquire(block),
      release: () => {}, // the walk is synchronous: what it enqueued has run, and no event need say so
      gradients: (block) => {
        if (this.#slotOf(this.#gradientSlots, block)) stream.fill(this.#wholeGradients[block]!, 0);
        return this.#gradients[block]!;
      },
      reduce: () => {},
      end: () => {
        this.#stream = before;
      },
    };
  }

  // ---- checkpoints -----------------------------------------------------------------------------------

  get stateStream(): Stream {
    return this.host?.stream ?? this.#stream;
  }

  shard(kind: StateKind, block: number): Tensor {
    return this.blocks[block]![kind];
  }

  async gatherMasters(block: number): Promise<BlockTensors> {
    const { weight, master } = this.blocks[block]!;
    const slot = this.#slotOf(this.#weightSlots, block);
    if (weight === master && !slot) return this.acquire(block);
    if (this.stage === 0 && !this.host) return this.#wholeMasters[block]!;
    const own = this.#ownGradients[block]!;
    if (this.host) await readMaster(this.host, this.#stream, own, master);
    if (this.stage === 0) return this.#gradients[block]!;
    this.#handOver();
    this.#comm.allGather(this.#wholeGradients[block]!, this.host ? own : master);
    this.#takeBack();
    return this.#gradients[block]!;
  }

  async shareWeights(): Promise<void> {
    for (const [b, { weight, master }] of this.blocks.entries()) {
      if (this.host) await roundMaster(this.host, this.#stream, weight, master);
      else if (weight !== master) this.#stream.convert(weight, master);
      this.updated(b);
    }
  }

  dispose(): void {
    for (const event of this.#events) event.dispose();
  }

  #slotOf(slots: readonly Slot[], block: number): Slot | undefined {
    return block === this.#edge ? undefined : slots[block % 2];
  }

  /** What is exchanged from now on finds what the walk has enqueued so far. */
  #handOver(): void {
    this.#stream.record(this.#computed);
    this.#commStream.wait(this.#computed);
  }

  /** What the walk enqueues from now on finds all that was exchanged so far. */
  #takeBack(): void {
    this.#commStream.record(this.#exchanged);
    this.#stream.wait(this.#exchanged);
  }
}
