import type { PackedBatch } from "../data/types.js";
import { ContractError } from "../errors.js";
import type { ModelShape } from "../model/index.js";
import { hostArray, opMethod, type Stream, Tensor, Window } from "../native/index.js";
import { loadAddon } from "../native/load.js";
import type { ParamStore } from "../parallel/store.js";
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
 * @returns e.g. `layer 3, backward: matmul wrote NaN to scratch.dO at [5, 17]`, or undefined when every op
 *   wrote finite values.
 */
export async function firstNonFinite(
  session: Session,
  shape: ModelShape,
  batches: readonly PackedBatch[],
  step: StepLoss,
): Promise<string | undefined> {
  const stream = session.device.stream({ synchronous: true });
  try {
    const place = createPlace(session, shape);
    watch(stream, place);
    const pass = session.secondPass(stream, place.store);
    for (const block of session.store.blocks) stream.fill(block.grad, 0);
    for (const batch of batches) {
      place.begin();
      await pass.train(batch, step, 0);
    }
    return undefined;
  } catch (error) {
    if (error instanceof Found) return error.message;
    throw error;
  } finally {
    stream.dispose();
  }
}

/** The block and direction the walk is in, and names for its tensors. */
interface Place {
  /** The session's store, which notes the block that the walk asks for. */
  readonly store: ParamStore;
  begin(): void;
  describe(): string;
  nameOf(tensor: Tensor): string;
  isWeight(tensor: Tensor): boolean;
}

function createPlace(session: Session, shape: ModelShape): Place {
  const { buffers } = session;
  const store: ParamStore = session.store;
  const { blocks, layouts } = session.store;
  const names = new Map<Tensor, string>(buffers.entries());
  const weights = new Set<Tensor>();
  blocks.forEach((block, b) => {
    names.set(block.grad, "gradients");
    for (const [name, tensor] of Object.entries(store.acquire(b))) {
      names.set(tensor, `weight ${name}`);
      weights.add(tensor);
    }
    for (const [name, tensor] of Object.entries(store.gradients(b))) {
      names.set(tensor, `gradient of weight ${name}`);
    }
  });
  let block = shape.numLayers;
  let direction = "forward";
  return {
    store: {
      prefetch: (b) => store.prefetch(b),
      release: (b) => store.release(b),
      reduce: (b) => store.reduce(b),
      acquire: (b) => {
        block = b;
        return store.acquire(b);
      },
      gradients: (b) => {
        block = b;
        direction = "backward";
        return store.gradients(b);
      },
    },
    begin: () => {
      direction = "forward";
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
