import type { DType, MatmulForm, Ops } from "#src/native/index.js";
import type { Random } from "./random.js";
import type { Tolerance } from "./tolerance.js";
import type { Values } from "./values.js";

/**
 * - `in`: read only, must come back untouched;
 * - `out`: poisoned with NaN before the call, compared with the reference after it;
 * - `update`: has values before the call (`+=`, or in place), compared after it;
 * - `scratch`: poisoned, never compared.
 */
export type Role = "in" | "out" | "update" | "scratch";

/** Values from a generator, or from values that exist already. */
export type Fill = (random: Random, elements: number) => ArrayLike<number>;

export interface TensorArgument {
  readonly role: Role;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Absent for `out`, and for inputs that {@link OpCase.derive} computes from the others. */
  readonly fill?: Fill;
  /** Lies over the memory of this argument: an in-place call. */
  readonly over?: string;
  /** Elements between the end of a row and the start of the next. */
  readonly rowGap?: number;
}

export type Argument = TensorArgument | MatmulForm | number;

/** One call of one op: the same data serves parity, determinism, gradients and, later, other devices and benches. */
export interface OpCase {
  readonly op: keyof Ops;
  /** What is particular: `T=33 C=96 bf16`. */
  readonly name: string;
  /** Arguments in the order of the op; the names are those of src/native/ops.ts. */
  readonly args: Readonly<Record<string, Argument>>;
  /** Inputs that follow from the others, such as `rstd` of `x`; rounded to their dtype afterwards. */
  readonly derive?: (values: Values) => Record<string, ArrayLike<number>>;
  /** Float64 results of every `out` and `update` argument. */
  readonly reference: (values: Values) => Record<string, ArrayLike<number>>;
  /** Where the tolerance of the dtype (see tolerance.ts) does not fit; say why beside it. */
  readonly tolerance?: Readonly<Record<string, Tolerance>>;
  /** What finite differences need to check a backward op. */
  readonly gradient?: Gradient;
  /** Every address aligned, for a case that is about vectors; otherwise layout.ts decides. */
  readonly aligned?: boolean;
  /** Bytes that must cross memory at least once: the roof of a memory-bound op. */
  readonly bytes: number;
  /** Multiplications and additions, where arithmetic is the roof. */
  readonly flops: number;
}

export interface Gradient {
  /** The scalar that the backward op differentiates, as a float64 function of the inputs. */
  readonly loss: (values: Values) => number;
  /** Output of the backward op → the input of the forward it is the gradient of. */
  readonly of: Readonly<Record<string, string>>;
  /** Where to differentiate by inputs of the forward that the backward op does not take. */
  readonly start?: (values: Values) => Record<string, Float64Array>;
  /** The outputs held the incoming gradient before the call: nothing to subtract. */
  readonly inPlace?: boolean;
}

type Options = { over?: string; rowGap?: number };

/** An output that the op overwrites. */
export function out(dtype: DType, shape: readonly number[], options: Options = {}): TensorArgument {
  return { role: "out", dtype, shape, ...options };
}

/** An output that the op adds to, or changes in place. */
export function update(
  dtype: DType,
  shape: readonly number[],
  options: Options & { fill?: Fill } = {},
): TensorArgument {
  return { role: "update", dtype, shape, fill: gaussian(1), ...options };
}

/** Memory that the op may use and nobody reads. */
export function scratch(dtype: DType, shape: readonly number[]): TensorArgument {
  return { role: "scratch", dtype, shape };
}

/** An input of N(0, scale²). */
export function normal(
  dtype: DType,
  shape: readonly number[],
  options: Options & { scale?: number } = {},
): TensorArgument {
  const { scale = 1, ...rest } = options;
  return { role: "in", dtype, shape, fill: gaussian(scale), ...rest };
}

/** An input in [low, high): away from zero, as a norm's weight or a variance is. */
export function uniform(
  dtype: DType,
  shape: readonly number[],
  low = 0.5,
  high = 1.5,
  options: Options = {},
): TensorArgument {
  const fill: Fill = (random, n) =>
    Float64Array.from({ length: n }, () => low + (high - low) * random.uniform());
  return { role: "in", dtype, shape, fill, ...options };
}

/** An input with these values, or from this generator. */
export function given(
  dtype: DType,
  shape: readonly number[],
  values: ArrayLike<number> | Fill,
  options: Options = {},
): TensorArgument {
  const fill: Fill = typeof values === "function" ? values : () => values;
  return { role: "in", dtype, shape, fill, ...options };
}

/** An input that `derive` computes. */
export function derived(dtype: DType, shape: readonly number[]): TensorArgument {
  return { role: "in", dtype, shape };
}

/** Indices in [0, limit). */
export function indices(shape: readonly number[], limit: number): TensorArgument {
  return given("i32", shape, (random, n) => Array.from({ length: n }, () => random.below(limit)));
}

export function gaussian(scale: number): Fill {
  return (random, n) => Float64Array.from({ length: n }, () => scale * random.normal());
}

export function isTensor(argument: Argument): argument is TensorArgument {
  return typeof argument === "object";
}

/** Every combination of the listed values: `product({ T: [1, 33], dtype: ["f32", "bf16"] })`. */
export function product<T extends Record<string, readonly unknown[]>>(
  axes: T,
): { [K in keyof T]: T[K][number] }[] {
  let rows: Record<string, unknown>[] = [{}];
  for (const [name, values] of Object.entries(axes)) {
    rows = rows.flatMap((row) => values.map((value) => ({ ...row, [name]: value })));
  }
  return rows as { [K in keyof T]: T[K][number] }[];
}

/** `{ T: 33, dtype: "bf16" }` as `T=33 bf16`, for the name of a case. */
export function label(parts: Record<string, unknown>): string {
  return Object.entries(parts)
    .map(([name, value]) => (typeof value === "number" ? `${name}=${value}` : String(value)))
    .join(" ");
}
