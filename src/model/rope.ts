import type { ModelShape } from "./shape.js";

/**
 * Angles of rotary position embedding [Su et al. 2021]: row p holds cos(p·f_i) and then sin(p·f_i) for
 * f_i = theta^(−2i/D), i < D/2.
 *
 * @returns (positions, D) f32
 */
export function ropeTable(shape: ModelShape, positions: number): Float32Array {
  const half = shape.headDim / 2;
  const frequencies = Array.from({ length: half }, (_, i) => shape.ropeTheta ** (-i / half));
  const table = new Float32Array(positions * shape.headDim);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      const angle = p * frequencies[i]!;
      table[p * shape.headDim + i] = Math.cos(angle);
      table[p * shape.headDim + half + i] = Math.sin(angle);
    }
  }
  return table;
}
