import type { Tensor } from "../native/index.js";

/** A parameter as the kernels want it: one matrix, made of the rows of one or more checkpoint tensors. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** Weight decay applies to matrices, not to norms and biases. */
  readonly decay: boolean;
  /** Checkpoint tensors stacked in the first dimension: `{ name: "…q_proj.weight", rows }`. */
  readonly parts: readonly { readonly name: string; readonly rows: number }[];
}

/** The parameters of one block, or of the edge block (embedding, final norm, head). */
export interface BlockSpec {
  readonly name: string;
  /** Matrices first, vectors last, so that a flat buffer has one weight-decay boundary. */
  readonly parameters: readonly ParameterSpec[];
}

/** Tensors by parameter name: weights, or their gradients. */
export type Parameters<Name extends string = string> = Readonly<Record<Name, Tensor>>;

/** A matrix stacked from checkpoint tensors of `columns` columns. */
export function matrix(
  name: string,
  columns: number,
  parts: readonly { name: string; rows: number }[],
): ParameterSpec {
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  return { name, shape: [rows, columns], decay: true, parts };
}

/** The weight of a norm, or a bias stacked from several. */
export function vector(
  name: string,
  parts: readonly { name: string; rows: number }[],
): ParameterSpec {
  const size = parts.reduce((sum, part) => sum + part.rows, 0);
  return { name, shape: [size], decay: false, parts };
}

/** A buffer with one row per token (or per scored row): its element type and the shape of a row. */
export interface RowSpec {
  /** "x" is the type of weights and activations of the run, f32 or bf16. */
  readonly dtype: "x" | "f32" | "i32";
  readonly row: readonly number[];
}
