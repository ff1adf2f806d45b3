import { ContractError } from "../errors.js";
import { type Addon, loadAddon } from "./load.js";

/** Element types, in the order of native/core/dtype.h. `f16` is for loading and saving only. */
export const DTYPES = ["f32", "bf16", "f16", "i32"] as const;
/** One of {@link DTYPES}. */
export type DType = (typeof DTYPES)[number];

/** Bytes of one element. */
export function sizeOf(dtype: DType): number {
  return dtype === "f32" || dtype === "i32" ? 4 : 2;
}

/** @throws ContractError when `dtype` is none or `shape` is no list. */
export function checkShape(method: string, dtype: unknown, shape: unknown): void {
  if (!DTYPES.includes(dtype as DType)) {
    throw new ContractError(
      `${method}: dtype is ${JSON.stringify(dtype)}, expected ${DTYPES.join(", ")}`,
    );
  }
  if (!Array.isArray(shape)) {
    throw new ContractError(
      `${method}: shape is ${JSON.stringify(shape)}, expected a list of whole numbers such as [512, 64]`,
    );
  }
}

/** Host arrays of the elements of a tensor; the 16-bit floats travel as their bits. */
export type HostArray = Float32Array | Int32Array | Uint16Array;

/** A zeroed host array for `elements` elements of `dtype`. */
export function hostArray(dtype: DType, elements: number): HostArray {
  if (dtype === "f32") return new Float32Array(elements);
  if (dtype === "i32") return new Int32Array(elements);
  return new Uint16Array(elements);
}

/** Product of the extents of a shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/**
 * A view of device memory: it owns nothing, belongs to an arena and dies with it. Made by
 * {@link Arena.tensor}, {@link Tensor.view} and {@link Tensor.window}.
 */
export class Tensor {
  /** Handle of the addon: slot and generation, so that a stale one is an error. */
  readonly id: number;
  /** Type of the elements. */
  readonly dtype: DType;
  /** Extents, first dimension first; rows are contiguous. */
  readonly shape: readonly number[];

  constructor(id: number, dtype: DType, shape: readonly number[]) {
    this.id = id;
    this.dtype = dtype;
    this.shape = shape;
  }

  /** First extent. */
  get rows(): number {
    return this.shape[0]!;
  }

  /** Number of elements. */
  get size(): number {
    return elementCount(this.shape);
  }

  /** Bytes of its elements. */
  get bytes(): number {
    return this.size * sizeOf(this.dtype);
  }

  /**
   * Another look at the same bytes: another shape, another dtype, or rows further apart.
   * @throws ContractError when the view does not lie inside this tensor.
   */
  view(
    shape: readonly number[],
    options: { dtype?: DType; byteOffset?: number; rowStride?: number } = {},
  ): Tensor {
    const dtype = options.dtype ?? this.dtype;
    const { byteOffset = 0, rowStride } = options;
    checkShape("view", dtype, shape);
    const id = addon().view(this.id, byteOffset, DTYPES.indexOf(dtype), shape, rowStride);
    return new Tensor(id, dtype, shape);
  }

  /** Rows `[begin, end)` as a tensor of their own. */
  slice(begin: number, end: number): Tensor {
    return this.window().set(begin, end - begin);
  }

  /** A movable run of rows of this tensor: one handle for all micro-batch sizes. */
  window(): Window {
    return new Window(this);
  }
}

/**
 * Rows `[begin, begin + rows)` of a base tensor. Moving it costs one small call and affects only work
 * enqueued afterwards, so one window serves every micro-batch.
 */
export class Window extends Tensor {
  /** The tensor that it looks at. */
  readonly base: Tensor;

  constructor(base: Tensor) {
    super(addon().view(base.id, 0, DTYPES.indexOf(base.dtype), base.shape, undefined), base.dtype, [
      ...base.shape,
    ]);
    this.base = base;
  }

  /** @throws ContractError when the rows do not lie inside the base. */
  set(begin: number, rows: number): this {
    if (!Number.isInteger(begin) || !Number.isInteger(rows)) {
      throw new ContractError(`window: rows [${begin}, +${rows}), expected whole numbers`);
    }
    addon().setWindow(this.id, this.base.id, begin, rows);
    (this.shape as number[])[0] = rows;
    return this;
  }
}

function addon(): Addon {
  return loadAddon();
}
