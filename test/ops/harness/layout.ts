import { alignedBytes, type HostArray, sizeOf } from "#src/native/index.js";
import { isTensor, type OpCase, type TensorArgument } from "./case.js";
import { encode } from "./dtype.js";
import type { Values } from "./values.js";

// Elements around every tensor that must stay as they are.
const GUARD = 32;

/**
 * Elements that each argument is moved by. A third of the cases have every address aligned, where kernels move 16
 * bytes at once; in the others every second argument is aligned to one element only, as rows of a window are.
 */
export function shifts(opCase: OpCase): number[] {
  const kind = opCase.aligned ? 0 : hash(`${opCase.op} ${opCase.name}`) % 3;
  return Object.keys(opCase.args).map((_, index) => (kind === 0 ? 0 : (index + kind) % 2));
}

function hash(text: string): number {
  let state = 2166136261; // FNV-1a
  for (const letter of text) state = Math.imul(state ^ letter.charCodeAt(0), 16777619);
  return (state ^ (state >>> 10)) >>> 0;
}

/** Where the rows of a tensor lie in its parent, in elements. */
export interface Layout {
  readonly offset: number;
  readonly rows: number;
  readonly rowSize: number;
  readonly rowStride: number;
}

/** A tensor argument with memory: its own, or that of the argument it lies over. */
export interface Placement {
  readonly name: string;
  readonly argument: TensorArgument;
  readonly layout: Layout;
  /** The parent as it is before the call; absent where the tensor lies over another. */
  readonly before?: HostArray;
}

/** Every tensor argument, in the order of the op. */
export function placements(opCase: OpCase, values: Values): Placement[] {
  const known = values.names();
  const shift = shifts(opCase);
  const layouts = new Map<string, Layout>();
  const tensors = Object.entries(opCase.args).flatMap(([name, argument], index) =>
    isTensor(argument) ? [{ name, argument, index }] : [],
  );
  for (const { name, argument, index } of tensors) {
    if (argument.over === undefined) layouts.set(name, layoutOf(argument, GUARD + shift[index]!));
  }
  return tensors.map(({ name, argument }) => {
    if (argument.over !== undefined) {
      const base = opCase.args[argument.over] as TensorArgument;
      return { name, argument, layout: layoutOver(argument, base, layouts.get(argument.over)!) };
    }
    const layout = layouts.get(name)!;
    const dense = known.includes(name) ? values.array(name) : undefined;
    return { name, argument, layout, before: image(argument, layout, dense) };
  });
}

/** Bytes of an arena that holds every parent. */
export function arenaBytes(opCase: OpCase): number {
  return Object.values(opCase.args)
    .filter(isTensor)
    .map((argument) => {
      const { rows, rowStride } = layoutOf(argument, 0);
      return alignedBytes(argument.dtype, [rows * rowStride + 2 * GUARD + 1]);
    })
    .reduce((sum, bytes) => sum + bytes, 0);
}

function layoutOf(argument: TensorArgument, offset: number): Layout {
  const [rows = 0, ...rest] = argument.shape;
  const rowSize = rest.reduce((a, b) => a * b, 1);
  return { offset, rows, rowSize, rowStride: rowSize + (argument.rowGap ?? 0) };
}

/** Starts where the other tensor starts, with as many bytes per row. */
function layoutOver(argument: TensorArgument, base: TensorArgument, under: Layout): Layout {
  const ratio = sizeOf(base.dtype) / sizeOf(argument.dtype);
  return { ...layoutOf(argument, under.offset * ratio), rowStride: under.rowStride * ratio };
}

/** The values, NaN for outputs, guards all around. */
function image(argument: TensorArgument, layout: Layout, values?: Float64Array): HostArray {
  const { dtype } = argument;
  const { offset, rows, rowSize, rowStride } = layout;
  const elements = new Float64Array(offset + rows * rowStride + GUARD);
  elements.fill(dtype === "i32" ? -123_456_789 : Number.NaN);
  if (values !== undefined) {
    for (let t = 0; t < rows; t++) {
      elements.set(values.subarray(t * rowSize, (t + 1) * rowSize), offset + t * rowStride);
    }
  }
  return encode(dtype, elements);
}
