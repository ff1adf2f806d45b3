import {
  type Arena,
  type DType,
  type MatmulForm,
  type Ops,
  type Stream,
  sizeOf,
  type Tensor,
} from "#src/native/index.js";
import { encode } from "./dtype.js";

/** A tensor of a call made by hand, zeros unless it has values. */
export interface Spec {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly values?: readonly number[];
  readonly rowStride?: number;
  /** Lies over this argument, `rowOffset` rows further down. */
  readonly over?: string;
  readonly rowOffset?: number;
}

export type CallArguments = Readonly<Record<string, Spec | MatmulForm | number>>;

const spec =
  (dtype: DType) =>
  (...shape: number[]): Spec => ({ dtype, shape });

export const f32 = spec("f32");
export const bf16 = spec("bf16");
export const f16 = spec("f16");
export const i32 = spec("i32");

/** An index table with these values. */
export function table(shape: readonly number[], ...values: number[]): Spec {
  return { dtype: "i32", shape, values };
}

/** The memory of another argument, from its row `rowOffset` on. */
export function over(name: string, like: Spec, rowOffset = 0): Spec {
  return { ...like, over: name, rowOffset };
}

/** Rows this far apart. */
export function strided(like: Spec, rowStride: number): Spec {
  return { ...like, rowStride };
}

export function isSpec(argument: Spec | MatmulForm | number): argument is Spec {
  return typeof argument === "object";
}

/** Tensors for a call. Each has a row to spare, so that another can lie over a part of it. */
export function place(
  arena: Arena,
  stream: Stream,
  args: CallArguments,
): Map<string, Tensor | MatmulForm | number> {
  const parents = new Map<string, Tensor>();
  for (const [name, argument] of Object.entries(args)) {
    if (!isSpec(argument) || argument.over !== undefined) continue;
    parents.set(name, arena.tensor(argument.dtype, [parentSize(argument)]));
  }
  const placed = new Map<string, Tensor | MatmulForm | number>();
  for (const [name, argument] of Object.entries(args)) {
    if (!isSpec(argument)) {
      placed.set(name, argument);
      continue;
    }
    const { dtype, shape, rowOffset = 0, rowStride = rowSize(shape) } = argument;
    const tensor = parents.get(argument.over ?? name)!.view([...shape], {
      dtype,
      byteOffset: rowOffset * rowStride * sizeOf(dtype),
      rowStride,
    });
    if (argument.values) stream.write(tensor, encode(dtype, argument.values));
    placed.set(name, tensor);
  }
  return placed;
}

/** Calls an op with arguments in the order of their names. */
export function callOp(
  stream: Stream,
  op: keyof Ops,
  args: Iterable<Tensor | MatmulForm | number>,
): void {
  const method = stream[op] as (...args: (Tensor | MatmulForm | number)[]) => void;
  method.apply(stream, [...args]);
}

function rowSize(shape: readonly number[]): number {
  return shape.slice(1).reduce((a, b) => a * b, 1);
}

function parentSize({ shape, rowStride = rowSize(shape) }: Spec): number {
  return (shape[0]! + 1) * rowStride;
}
