import { openDevice, type Stream, type Tensor } from "#src/native/index.js";

/** A device, a stream and an arena of a megabyte or more, closed together. */
export function openAll(options: { threads?: number; bytes?: number } = {}) {
  const device = openDevice("cpu", { threads: options.threads ?? 2 });
  const stream = device.stream();
  const arena = device.arena(options.bytes ?? 2 ** 20, "test");
  return {
    device,
    stream,
    arena,
    [Symbol.dispose]() {
      stream.dispose();
      arena.dispose();
      device.dispose();
    },
  };
}

/** Elements of the square matrices that {@link enqueueLongWork} multiplies. */
export const LONG_SIDE = 768;

/** Bytes that the matrices of {@link enqueueLongWork} take. */
export const LONG_BYTES = 3 * 4 * LONG_SIDE ** 2;

/** Enqueues work that takes hundreds of milliseconds: a chain of square products. */
export function enqueueLongWork(stream: Stream, [c, a, b]: readonly Tensor[], products = 40): void {
  stream.fill(a!, 0.5);
  stream.fill(b!, 1 / 1024);
  for (let i = 0; i < products; i++) stream.matmul(c!, a!, b!, "nn");
}
