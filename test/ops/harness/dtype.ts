import { type DType, type HostArray, hostArray } from "#src/native/index.js";

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

function bitsOf(value: number): number {
  f32[0] = value;
  return u32[0]!;
}

/** The bits of the bf16 nearest to `value`, ties to even. */
export function toBf16(value: number): number {
  if (Number.isNaN(value)) return 0x7fc0;
  const bits = bitsOf(value);
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

export function fromBf16(bits: number): number {
  u32[0] = bits << 16;
  return f32[0]!;
}

/** The bits of the IEEE half nearest to `value`, ties to even; beyond 65504 they overflow to infinity. */
export function toF16(value: number): number {
  const sign = bitsOf(value) >>> 31 ? 0x8000 : 0;
  if (Number.isNaN(value)) return 0x7e00;
  const size = Math.abs(Math.fround(value));
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max((bitsOf(size) >>> 23) - 127, -14); // -14: subnormal below 2^-14
  const steps = roundToEven(size / 2 ** (exponent - 10));
  // Adding, not or-ing: a mantissa that rounds up to 2^11 carries into the exponent, as it should.
  return sign | (exponent === -14 ? steps : ((exponent + 14) << 10) + steps);
}

export function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25));
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Values as the elements of a host array of `dtype`, rounded to nearest. */
export function encode(dtype: DType, values: ArrayLike<number>): HostArray {
  const array = hostArray(dtype, values.length);
  for (let i = 0; i < array.length; i++) {
    const value = values[i]!;
    array[i] = dtype === "bf16" ? toBf16(value) : dtype === "f16" ? toF16(value) : value;
  }
  return array;
}

/** The exact value of each element. */
export function decode(dtype: DType, array: HostArray): Float64Array {
  if (dtype === "bf16") return Float64Array.from(array, fromBf16);
  if (dtype === "f16") return Float64Array.from(array, fromF16);
  return Float64Array.from(array);
}

/** What remains of float64 values once stored as `dtype`. */
export function rounded(dtype: DType, values: ArrayLike<number>): Float64Array {
  return decode(dtype, encode(dtype, values));
}
