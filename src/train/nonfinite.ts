import { pairBatch } from "../data/pack.js";
import type { PackedBatch } from "../data/types.js";
import { ContractError } from "../errors.js";
import type { ModelShape } from "../model/index.js";
import { hostArray, opMethod, type Stream, Tensor, Window } from "../native/index.js";
import { loadAddon } from "../native/load.js";
import type { ProcessGroup } from "../parallel/group.js";
import type { BlockTensors, ParamStore } from "../parallel/store.js";
import type { StepLoss } from "./loss-groups.js";
import type { Session } from "./session.js";

/** Where in a step a value first was not finite. */
class Found extends Error {}

/**
 * Walks the micro-batches of a step again on a synchronous stream, reading back what each op wrote, and
 * says which op, in which block and direction, was the first to write a value that is not finite. The
 * gradients in the store are overwritten; weights and optimizer state are only read. Slow: every buffer
 * crosses to JavaScript.
 *
 * With several ranks each walks its own micro-batches, and the lowest rank that found something is heard. Nothing is
 * exchanged on the way but weights, where ranks share them (`zero_stage: 3`): a rank that found something then asks
 * for what is left of its walks, so that the others are not left waiting.
 *
 * @returns e.g. `layer 3, backward: matmul wrote NaN to scratch.dO at [5, 17]`, with several ranks after `rank 2, `; or
 *   undefined when every op wrote finite values.
 */
export async function firstNonFinite(
  session: Session,
  shape: ModelShape,
  group: ProcessGroup,
  batches: readonly PackedBatch[],
  step: StepLoss,
): Promise<string | undefined> {
  const own = await firstOfRank(session, shape, batches, step);
  if (group.size === 1) return own;
  const found = await group.gather("a value that is not finite", own ?? null);
  const rank = found.findIndex((finding) => finding !== null);
  return rank < 0 ? undefined : `rank ${rank}, ${found[rank]}`;
}

async function firstOfRank(
  session: Session,
  shape: ModelShape,
  batches: readonly PackedBatch[],
  step: StepLoss,
): Promise<string | undefined> {
  const stream = session.device.stream({ synchronous: true });
  const walk = session.store.local(stream);
  let found: string | undefined;
  try {
    const place = createPlace(session, shape, walk);
    watch(stream, place);
    const pass = session.secondPass(stream, place.store);
    for (const batch of batches) {
      if (found !== undefined && !walk.lockstep) break;
      place.begin();
      try {
        await pass.train(found === undefined ? batch : NOTHING, step, 0);
      } catch (error) {
        if (!(error instanceof Found)) throw error;
        found = error.message;
        if (walk.lockstep) await place.finish(() => pass.train(NOTHING, step, 0));
      }
    }
    return found;
  } finally {
    walk.end();
    stream.dispose();
  }
}

/** A micro-batch without examples. */
const NOTHING = pairBatch([], { prefixSharing: false });

/** The block and direction the walk is in, and names for its tensors. */
interface Place {
  /** The session's store, which notes the block that the walk asks for. */
  readonly store: ParamStore;
  begin(): void;
  /** Goes on where a walk broke off: `walk` is the same one, without what the store was asked for already. */
  finish(walk: () => Promise<void>): Promise<void>;
  describe(): string;
  nameOf(tensor: Tensor): string;
  isWeight(tensor: Tensor): boolean;
}

function createPlace(session: Session, shape: ModelShape, walk: ParamStore): Place {
  const { layouts } = session.store;
  const edge = shape.numLayers;
  const names = new Map<Tensor, string>(session.buffers.entries());
  const weights = new Set<Tensor>();
  let block = edge;
  let direction = "forward";
  /** Calls about the weights of layers: a walk makes the same ones whatever it computes. */
  let calls = 0;
  let made = 0;
  const ask = (b: number, call: () => void) => {
    if (b !== edge && ++calls <= made) return;
    call();
  };
  return {
    store: {
      prefetch: (b) => ask(b, () => walk.prefetch(b)),
      release: (b) => ask(b, () => walk.release(b)),
      reduce: (b) => walk.reduce(b),
      acquire: (b) => {
        block = b;
        let tensors: BlockTensors = {};
        ask(b, () => {
          tensors = walk.acquire(b);
        });
        for (const [name, tensor] of Object.entries(tensors)) {
          names.set(tensor, `weight ${name}`);
          weights.add(tensor);
        }
        return tensors;
      },
      gradients: (b) => {
        block = b;
        direction = "backward";
        const tensors = walk.gradients(b);
        for (const [name, tensor] of Object.entries(tensors)) {
          names.set(tensor, `gradient of weight ${name}`);
        }
        return tensors;
      },
    },
    begin: () => {
      direction = "forward";
      calls = 0;
      made = 0;
    },
    finish: async (rest) => {
      made = calls;
      calls = 0;
      await rest();
    },
    describe: () => `${layouts[block]!.spec.name}, ${direction}`,
    nameOf: (tensor) => {
      const base = tensor instanceof Window ? tensor.base : tensor;
      // The activations of a layer are named by it, which the block says already.
      return (names.get(tensor) ?? names.get(base) ?? "a tensor").replace(/^layer\.\d+\./, "");
    },
    isWeight: (tensor) => weights.has(tensor),
  };
}

/** Makes every op of the stream look at its tensors once it has run. @throws Found from the op's call. */
function watch(stream: Stream, place: Place): void {
  const sound = new Set<Tensor>(); // weights that were looked at: nothing writes them here
  for (const op of Object.keys(loadAddon().ops)) {
    const method = opMethod(op);
    const run = stream[method] as (...args: unknown[]) => void;
    const watched = (...args: unknown[]): void => {
      run.apply(stream, args);
      const tensors = args.filter((arg) => arg instanceof Tensor);
      // Outputs come first. What was written before is finite, so the first finding is the op's own, or a weight's.
      const found = tensors.flatMap((tensor) => {
        if (tensor.dtype === "i32" || sound.has(tensor)) return [];
        const at = findNonFinite(stream, tensor);
        if (at === undefined && place.isWeight(tensor)) sound.add(tensor);
        return at === undefined ? [] : [{ tensor, ...at }];
      });
      const [first] = found;
      if (first === undefined) return;
      const index = `[${indexOf(first.element, first.tensor.shape).join(", ")}]`;
      const wrote = place.isWeight(first.tensor) ? "read" : "wrote";
      const to = wrote === "read" ? "in" : "to";
      const weight = found.find(({ tensor }) => tensor !== first.tensor && place.isWeight(tensor));
      const because = weight
        ? `; its ${place.nameOf(weight.tensor)} holds ${weight.value} already`
        : "";
      throw new Found(
        `${place.describe()}: ${op} ${wrote} ${first.value} ${to} ${place.nameOf(first.tensor)} ` +
          `at ${index}${because}`,
      );
    };
    Object.defineProperty(stream, method, { value: watched });
  }
}

/** The first element of a tensor that is not finite. */
function findNonFinite(
  stream: Stream,
  tensor: Tensor,
): { element: number; value: number } | undefined {
  const host = hostArray(tensor.dtype, tensor.size);
  try {
    settle(stream.readInto(tensor, host));
  } catch (error) {
    // d logits in bf16: rows apart from each other, which are read one by one.
    if (!(error instanceof ContractError)) throw error;
    const row = tensor.window();
    const size = tensor.size / tensor.rows;
    for (let r = 0; r < tensor.rows; r++)
      settle(stream.readInto(row.set(r, 1), host.subarray(r * size, (r + 1) * size)));
  }
  const element =
    host instanceof Uint16Array
      ? host.findIndex((bits) => (bits & exponent(tensor)) === exponent(tensor))
      : (host as Float32Array).findIndex((value) => !Number.isFinite(value));
  if (element < 0) return undefined;
  return { element, value: floatOf(tensor, host[element]!) };
}

/** The array is filled when a synchronous stream returns; the promise only says so later. */
function settle(read: Promise<void>): void {
  read.catch(() => {});
}

/** Bits that are all set in NaN and in the infinities of a 16-bit float. */
function exponent({ dtype }: Tensor): number {
  return dtype === "bf16" ? 0x7f80 : 0x7c00;
}

function floatOf(tensor: Tensor, value: number): number {
  if (tensor.dtype === "f32") return value;
  if ((value & ~exponent(tensor) & 0x7fff) !== 0) return Number.NaN;
  return value & 0x8000 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

function indexOf(element: number, shape: readonly number[]): number[] {
  const index: number[] = [];
  let rest = element;
  for (const extent of shape.toReversed()) {
    index.unshift(rest % extent);
    rest = Math.floor(rest / extent);
  }
  return index;
}
