import { readFileSync } from "node:fs";

/** One record of an event file. */
export interface ReadEvent {
  wallTime: number;
  step?: number;
  fileVersion?: string;
  scalars: Record<string, number>;
}

/**
 * Reads an event file: framing with both checksums, then protobuf. Written apart from the product's writer, with
 * a bitwise checksum, so that one does not repeat the other's mistake.
 */
export function readEvents(file: string): ReadEvent[] {
  const data = readFileSync(file);
  const events: ReadEvent[] = [];
  let at = 0;
  while (at < data.length) {
    const length = Number(data.readBigUInt64LE(at));
    check(data.subarray(at, at + 8), data.readUInt32LE(at + 8));
    const body = data.subarray(at + 12, at + 12 + length);
    check(body, data.readUInt32LE(at + 12 + length));
    events.push(readEvent(body));
    at += length + 16;
  }
  return events;
}

function check(bytes: Uint8Array, stored: number): void {
  // Unmask: the writer rotated right by 15 and added a constant.
  const rotated = (stored - 0xa282ead8) >>> 0;
  const expected = ((rotated << 15) | (rotated >>> 17)) >>> 0;
  let remainder = 0xffffffffn;
  for (const byte of bytes) {
    remainder ^= BigInt(byte);
    for (let i = 0; i < 8; i++) {
      remainder = (remainder >> 1n) ^ (remainder & 1n ? 0x82f63b78n : 0n);
    }
  }
  const found = Number(remainder ^ 0xffffffffn);
  if (found !== expected) throw new Error(`checksum ${found}, stored ${expected}`);
}

/** A field of a message: a number, or the bytes behind it. */
export type Field = { field: number; value: bigint | Buffer };

/** The fields of a message, in order. */
export function fields(data: Buffer): Field[] {
  const found: Field[] = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = data[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const take = (length: number): Buffer => {
    at += length;
    return data.subarray(at - length, at);
  };
  while (at < data.length) {
    const key = Number(varint());
    const wire = key & 7;
    if (wire !== 0 && wire !== 1 && wire !== 2 && wire !== 5) throw new Error(`wire type ${wire}`);
    const value = wire === 0 ? varint() : take(wire === 1 ? 8 : wire === 5 ? 4 : Number(varint()));
    found.push({ field: key >> 3, value });
  }
  if (at !== data.length) throw new Error("a field ends beyond its message");
  return found;
}

function readEvent(data: Buffer): ReadEvent {
  const event: ReadEvent = { wallTime: Number.NaN, scalars: {} };
  for (const { field, value } of fields(data)) {
    if (field === 1) event.wallTime = (value as Buffer).readDoubleLE();
    else if (field === 2) event.step = Number(value);
    else if (field === 3) event.fileVersion = String(value);
    else if (field === 5) for (const inner of fields(value as Buffer)) readValue(event, inner);
    else throw new Error(`field ${field} of Event`);
  }
  return event;
}

function readValue(event: ReadEvent, { value }: Field): void {
  const parts = new Map(fields(value as Buffer).map((part) => [part.field, part.value as Buffer]));
  event.scalars[parts.get(1)!.toString()] = parts.get(2)!.readFloatLE();
}
