// Protobuf's wire format, as far as event files and W&B's run files need it. A field is its number, a wire
// type and a value; a message is its fields one after the other.

const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/** Whole numbers of 0 and more, seven bits a byte, low ones first; arithmetic keeps steps beyond 2^31. */
function varint(value: number): Buffer {
  const found: number[] = [];
  let rest = value;
  while (rest >= 128) {
    found.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...found, rest]);
}

function key(field: number, wire: number): Buffer {
  return varint(field * 8 + wire);
}

/** A field of type int32, int64 or bool that is not negative. */
export function wholeField(field: number, value: number): Buffer {
  return Buffer.concat([key(field, VARINT), varint(value)]);
}

/** A field of type double. */
export function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, FIXED64), bytes]);
}

/** A field of type float. */
export function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, FIXED32), bytes]);
}

/** A field of type string. */
export function textField(field: number, value: string): Buffer {
  return bytesField(field, Buffer.from(value, "utf8"));
}

/** A field that holds a message. */
export function messageField(field: number, ...fields: readonly Buffer[]): Buffer {
  return bytesField(field, Buffer.concat(fields));
}

function bytesField(field: number, value: Uint8Array): Buffer {
  return Buffer.concat([key(field, LENGTH), varint(value.length), value]);
}
