import { closeSync, openSync, writeSync } from "node:fs";
import { type HostArray, MATMUL_FORMS } from "#src/native/index.js";
import { isTensor, type OpCase } from "./case.js";
import { type Placement, placements } from "./layout.js";
import { defaultTolerance, type Tolerance } from "./tolerance.js";
import { drawValues } from "./values.js";

/** The same in native/emulator/replay_file.h, which has the format. */
const MAGIC = "SIMPERRP";
const VERSION = 1;

const ROLES = ["in", "out", "update", "scratch"] as const;
const DTYPES = ["f32", "bf16", "f16", "i32"] as const;

/** Op cases as one file for the native runner, each with its inputs drawn and its float64 reference. */
export function writeReplay(file: string, cases: readonly OpCase[]): void {
  const out = openSync(file, "w");
  try {
    writeSync(out, new Bytes().ascii(MAGIC).u32(VERSION).u32(cases.length).take());
    for (const opCase of cases) {
      const body = replayCase(opCase);
      writeSync(out, new Bytes().u64(body.length).take());
      for (let written = 0; written < body.length; ) written += writeSync(out, body, written);
    }
  } finally {
    closeSync(out);
  }
}

function replayCase(opCase: OpCase): Buffer {
  const values = drawValues(opCase);
  const expected = opCase.reference(values);
  const tensors = new Map(placements(opCase, values).map((placed) => [placed.name, placed]));
  const names = Object.keys(opCase.args);
  const bytes = new Bytes();
  bytes.text(nativeName(opCase.op)).text(opCase.name).u32(names.length);
  for (const [name, argument] of Object.entries(opCase.args)) {
    bytes.text(name);
    if (!isTensor(argument)) {
      const number = typeof argument === "number" ? argument : MATMUL_FORMS.indexOf(argument);
      bytes.u8(0).f64([number]);
      continue;
    }
    bytes.u8(1);
    tensor(bytes, tensors.get(name)!, names);
    if (argument.role !== "out" && argument.role !== "update") continue;
    const reference = expected[name];
    if (reference === undefined) {
      throw new Error(`${opCase.op} ${opCase.name}: the case has no reference for ${name}`);
    }
    tolerance(bytes, opCase.tolerance?.[name] ?? defaultTolerance(argument.dtype));
    bytes.u64(reference.length).f64(reference);
  }
  return bytes.take();
}

function tensor(bytes: Bytes, placed: Placement, names: readonly string[]): void {
  const { argument, layout, before } = placed;
  bytes.u8(ROLES.indexOf(argument.role)).u8(DTYPES.indexOf(argument.dtype));
  bytes.u8(argument.shape.length);
  bytes.u32(
    argument.over === undefined ? names.indexOf(placed.name) : names.indexOf(argument.over),
  );
  for (const size of argument.shape) bytes.u64(size);
  bytes.u64(layout.rowStride).u64(layout.offset);
  if (before !== undefined) bytes.u64(before.byteLength).raw(before);
}

function tolerance(bytes: Bytes, limit: Tolerance): void {
  if (limit === "exact") bytes.u8(0).f64([0]);
  else if ("relative" in limit) bytes.u8(1).f64([limit.relative]);
  else bytes.u8(2).f64([limit.absolute]);
}

/** `attentionForward` → `attention_forward`, as in ops.def. */
function nativeName(op: string): string {
  return op.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Little-endian bytes, one field after another. */
class Bytes {
  private readonly parts: Buffer[] = [];

  u8(value: number): this {
    return this.push(Buffer.from([value]));
  }

  u32(value: number): this {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    return this.push(part);
  }

  u64(value: number): this {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    return this.push(part);
  }

  f64(values: ArrayLike<number>): this {
    return this.raw(Float64Array.from(values));
  }

  ascii(text: string): this {
    return this.push(Buffer.from(text, "latin1"));
  }

  text(text: string): this {
    const part = Buffer.from(text);
    return this.u32(part.length).push(part);
  }

  raw(array: HostArray | Float64Array): this {
    return this.push(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  }

  take(): Buffer {
    return Buffer.concat(this.parts);
  }

  private push(part: Buffer): this {
    this.parts.push(part);
    return this;
  }
}
