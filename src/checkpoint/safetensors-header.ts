import { CheckpointError } from "../errors.js";

/** Bytes per element of the types the safetensors format names. */
export const elementBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
} as const;

export type SafetensorsDtype = keyof typeof elementBytes;

/** A tensor as a file declares it. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

/** A tensor with the place of its bytes. */
export interface TensorInfo extends TensorEntry {
  readonly file: string;
  /** Absolute offset in the file. */
  readonly offset: number;
  readonly byteLength: number;
}

/** The format's own limit on the length of a header. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Size of a tensor in bytes, or undefined where it exceeds what a double counts exactly. */
export function tensorBytes({ dtype, shape }: Omit<TensorEntry, "name">): number | undefined {
  if (shape.includes(0)) return 0;
  let bytes: number = elementBytes[dtype];
  for (const n of shape) {
    // Exact below 2^53, and a rounded product cannot come back below it.
    bytes *= n;
    if (bytes > Number.MAX_SAFE_INTEGER) return undefined;
  }
  return bytes;
}

/**
 * Checks a header against the format and the size of its file.
 *
 * The format: u64 header length n, n bytes of JSON `{name: {dtype, shape, data_offsets}}`, then the data,
 * which the tensors cover exactly: no hole, no overlap, nothing after the last one.
 *
 * @throws CheckpointError naming the file, the tensor, what was expected and what came.
 */
export function parseHeader(
  file: string,
  headerBytes: Uint8Array,
  fileBytes: number,
): { tensors: TensorInfo[]; metadata: Record<string, string> } {
  const refuse = (message: string): CheckpointError =>
    new CheckpointError(`${file}: ${message}`, {
      hint: "The file is damaged or no safetensors file; download or save it again.",
    });
  const text = decode(headerBytes);
  if (text === undefined) throw refuse("the header is not valid UTF-8");
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw refuse(`the header is not valid JSON: ${(error as Error).message}`);
  }
  if (!isRecord(header)) throw refuse("the header is not a JSON object");
  const twice = repeatedKey(text);
  if (twice !== undefined) throw refuse(`the header names "${twice}" twice`);

  const dataStart = 8 + headerBytes.length;
  const dataBytes = fileBytes - dataStart;
  let metadata: Record<string, string> = {};
  const tensors: TensorInfo[] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") {
      if (!isRecord(value) || Object.values(value).some((text) => typeof text !== "string")) {
        throw refuse("__metadata__ is not a map of text to text");
      }
      metadata = value as Record<string, string>;
      continue;
    }
    tensors.push(parseEntry(name, value));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = dataStart;
  let previous = "the header";
  for (const tensor of tensors) {
    if (tensor.offset !== end) {
      const what = tensor.offset < end ? "overlaps" : "leaves a gap after";
      throw refuse(`tensor "${tensor.name}" ${what} ${previous}`);
    }
    end += tensor.byteLength;
    previous = `tensor "${tensor.name}"`;
  }
  if (end !== fileBytes) {
    throw refuse(`${fileBytes - end} bytes follow ${previous}; expected the end of the file`);
  }
  return { tensors, metadata };

  function parseEntry(name: string, value: unknown): TensorInfo {
    const wrong = (message: string): CheckpointError => refuse(`tensor "${name}": ${message}`);
    if (!isRecord(value)) throw wrong("expected {dtype, shape, data_offsets}");
    const { dtype, shape, data_offsets: offsets } = value;
    if (typeof dtype !== "string" || !Object.hasOwn(elementBytes, dtype)) {
      const known = Object.keys(elementBytes).join(", ");
      throw wrong(`dtype ${brief(dtype)} is not known; expected one of ${known}`);
    }
    if (!isSizeList(shape)) {
      throw wrong(`shape ${brief(shape)} is not a list of whole numbers`);
    }
    if (!isSizeList(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
      throw wrong(`data_offsets ${brief(offsets)} are not [begin, end]`);
    }
    const [begin, stop] = offsets as [number, number];
    if (stop > dataBytes) {
      throw wrong(`its data ends at byte ${stop} of ${dataBytes}; the file is cut short`);
    }
    const entry = { name, dtype: dtype as SafetensorsDtype, shape };
    const expected = tensorBytes(entry);
    if (expected !== stop - begin) {
      throw wrong(
        `[${shapeText(shape)}] ${dtype} takes ${expected ?? "more than 2^53"} bytes, ` +
          `data_offsets hold ${stop - begin}`,
      );
    }
    return { ...entry, file, offset: dataStart + begin, byteLength: stop - begin };
  }
}

/** The bytes before the data: length, JSON, spaces up to a multiple of 8. */
export function formatHeader(
  entries: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  let offset = 0;
  const fields: [string, unknown][] = [["__metadata__", metadata]];
  for (const { name, dtype, shape } of entries) {
    const begin = offset;
    offset += tensorBytes({ dtype, shape }) ?? Number.NaN;
    fields.push([name, { dtype, shape, data_offsets: [begin, offset] }]);
  }
  // Written by hand: an object would move keys that look like numbers to the front.
  const json = `{${fields.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(",")}}`;
  const body = Buffer.from(json);
  const length = Math.ceil(body.length / 8) * 8;
  const header = Buffer.alloc(8 + length, " ");
  header.writeBigUInt64LE(BigInt(length));
  body.copy(header, 8);
  return header;
}

/** A value of a header or an index in a message: a damaged file may hold a megabyte of it, or lists without end. */
export function brief(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? "nothing";
  } catch {
    return "lists in lists in lists"; // too deep for the stack; what JSON.parse returned has no other fault
  }
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function shapeText(shape: readonly number[]): string {
  const shown = shape.slice(0, 8).join(", ");
  return shape.length > 8 ? `${shown}, … ${shape.length} in all` : shown;
}

function decode(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Whether a JSON value is an object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a JSON value is a list of sizes: whole numbers from 0 to 2^53. */
export function isSizeList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** A key that a JSON object (known to be valid) holds twice at its top level: JSON.parse keeps one. */
function repeatedKey(json: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  let expectsKey = false;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]/g)) {
    if (token === "{" || token === "[") {
      depth++;
      expectsKey = depth === 1;
    } else if (token === "}" || token === "]") {
      depth--;
    } else if (token === ",") {
      expectsKey = depth === 1;
    } else if (token !== ":" && expectsKey) {
      const key = JSON.parse(token) as string;
      if (seen.has(key)) return key;
      seen.add(key);
      expectsKey = false;
    }
  }
  return undefined;
}
