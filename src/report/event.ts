/** What one record of an event file says: the format's version, or scalars of a step. */
export type EventContent =
  | { readonly fileVersion: string }
  | { readonly step: number; readonly scalars: Readonly<Record<string, number>> };

/**
 * An `Event` of TensorBoard in protobuf's wire format.
 *
 *     Event   { wall_time: double = 1; step: int64 = 2; file_version: string = 3; summary: Summary = 5 }
 *     Summary { repeated Value value = 1 }      Value { tag: string = 1; simple_value: float = 2 }
 *
 * @param wallTime seconds since 1970.
 */
export function encodeEvent(wallTime: number, content: EventContent): Buffer {
  const time = Buffer.alloc(9);
  time[0] = (1 << 3) | FIXED64;
  time.writeDoubleLE(wallTime, 1);
  if ("fileVersion" in content) return Buffer.concat([time, text(3, content.fileVersion)]);
  const values = Object.entries(content.scalars).map(([tag, value]) =>
    bytes(1, scalar(tag, value)),
  );
  const step = Buffer.from([(2 << 3) | VARINT, ...varint(content.step)]);
  return Buffer.concat([time, step, bytes(5, Buffer.concat(values))]);
}

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

function scalar(tag: string, value: number): Buffer {
  const simple = Buffer.alloc(5);
  simple[0] = (2 << 3) | FIXED32;
  simple.writeFloatLE(value, 1);
  return Buffer.concat([text(1, tag), simple]);
}

function text(field: number, value: string): Buffer {
  return bytes(field, Buffer.from(value, "utf8"));
}

function bytes(field: number, value: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([(field << 3) | LENGTH, ...varint(value.length)]), value]);
}

/** Seven bits a byte, low ones first; arithmetic instead of shifts, so that steps may pass 2^31. */
function varint(value: number): number[] {
  const found: number[] = [];
  let rest = value;
  while (rest >= 128) {
    found.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...found, rest];
}
