import {
  type Device,
  type DType,
  type HostArray,
  type MatmulForm,
  type Stream,
  sizeOf,
  type Tensor,
} from "#src/native/index.js";
import { isTensor, type OpCase, type TensorArgument } from "./case.js";
import { decode } from "./dtype.js";
import { arenaBytes, type Layout, placements } from "./layout.js";
import type { Values } from "./values.js";

/** What one call left behind. */
export interface Result {
  /** Every `out` and `update` argument, dense, in float64. */
  readonly values: ReadonlyMap<string, Float64Array>;
  /** The same as raw elements, for comparisons bit by bit. */
  readonly bits: ReadonlyMap<string, HostArray>;
  /** Memory that changed although the op had no business there. */
  readonly trespasses: readonly string[];
}

interface Placed {
  readonly argument: TensorArgument;
  readonly parent: Tensor;
  readonly before: HostArray;
  readonly tensor: Tensor;
  readonly layout: Layout;
}

/** Runs the case once and reads everything back. */
export async function runCase(
  device: Device,
  stream: Stream,
  opCase: OpCase,
  values: Values,
): Promise<Result> {
  const arena = device.arena(arenaBytes(opCase), `case of ${opCase.op}`);
  try {
    const placed = new Map<string, Placed>();
    const all = placements(opCase, values);
    for (const { name, argument, layout, before } of all) {
      if (before === undefined) continue;
      const parent = arena.tensor(argument.dtype, [before.length]);
      stream.write(parent, before);
      const tensor = viewOf(parent, argument, layout);
      placed.set(name, { argument, parent, before, tensor, layout });
    }
    for (const { name, argument, layout } of all) {
      if (argument.over === undefined) continue;
      const { parent, before } = placed.get(argument.over)!;
      const tensor = viewOf(parent, argument, layout);
      placed.set(name, { argument, parent, before, tensor, layout });
    }
    const call = stream[opCase.op] as (...args: (Tensor | MatmulForm | number)[]) => void;
    const args = Object.entries(opCase.args).map(([name, argument]) =>
      isTensor(argument) ? placed.get(name)!.tensor : argument,
    );
    call.apply(stream, args);
    return await collect(stream, opCase, placed);
  } finally {
    arena.dispose();
  }
}

function viewOf(parent: Tensor, argument: TensorArgument, layout: Layout): Tensor {
  return parent.view([...argument.shape], {
    dtype: argument.dtype,
    byteOffset: layout.offset * sizeOf(argument.dtype),
    rowStride: layout.rowStride,
  });
}

async function collect(
  stream: Stream,
  opCase: OpCase,
  placed: ReadonlyMap<string, Placed>,
): Promise<Result> {
  const after = new Map<Tensor, HostArray>();
  for (const { parent } of placed.values()) {
    if (!after.has(parent)) after.set(parent, await stream.read(parent));
  }
  const values = new Map<string, Float64Array>();
  const bits = new Map<string, HostArray>();
  const trespasses: string[] = [];
  const overlaid = new Set(
    Object.values(opCase.args).map((argument) => isTensor(argument) && argument.over),
  );
  for (const [name, { argument, parent, before, layout }] of placed) {
    const parentAfter = after.get(parent)!;
    if (argument.over === undefined) {
      const readOnly = argument.role === "in" && !overlaid.has(name);
      trespasses.push(...changedOutside(name, before, parentAfter, layout, readOnly));
    }
    if (argument.role === "out" || argument.role === "update") {
      const dense = rowsOf(parentAfter, argument.dtype, layout);
      bits.set(name, dense);
      values.set(name, decode(argument.dtype, dense));
    }
  }
  return { values, bits, trespasses };
}

function rowsOf(parent: HostArray, dtype: DType, layout: Layout): HostArray {
  const all =
    dtype === "f32"
      ? new Float32Array(parent.buffer)
      : dtype === "i32"
        ? new Int32Array(parent.buffer)
        : new Uint16Array(parent.buffer);
  const { offset, rows, rowSize, rowStride } = layout;
  const dense = all.slice(0, rows * rowSize);
  for (let t = 0; t < rows; t++) {
    const begin = offset + t * rowStride;
    dense.set(all.subarray(begin, begin + rowSize) as never, t * rowSize);
  }
  return dense;
}

function changedOutside(
  name: string,
  before: HostArray,
  after: HostArray,
  layout: Layout,
  readOnly: boolean,
): string[] {
  const was = rawBits(before);
  const is = rawBits(after);
  for (let i = 0; i < was.length; i++) {
    if (was[i] === is[i]) continue;
    const inside = i - layout.offset;
    const row = Math.floor(inside / layout.rowStride);
    const column = inside - row * layout.rowStride;
    const belongs = row >= 0 && row < layout.rows && column < layout.rowSize;
    if (!belongs) return [`${name}: memory at row ${row}, column ${column} was written`];
    if (readOnly) return [`${name}: the input changed at row ${row}, column ${column}`];
  }
  return [];
}

/** Elements as integers, so that NaN equals itself. */
export function rawBits(array: HostArray): Uint32Array | Uint16Array {
  return array instanceof Uint16Array
    ? array
    : new Uint32Array(array.buffer, array.byteOffset, array.length);
}
