import type { DType } from "#src/native/index.js";

/**
 * - `exact`: equal values, for ops that move or round and do not compute;
 * - `relative`: error norm over result norm, with a loose bound on the worst element;
 * - `absolute`: largest error of an element, for logarithms, whose size says nothing about their error.
 */
export type Tolerance = "exact" | { readonly relative: number } | { readonly absolute: number };

/**
 * What holds where a case says nothing else. Sums are accumulated in f32 or f64 over at most a few thousand
 * terms: 1e-5 is a hundred roundings of f32. A bf16 result pays one rounding of 2^-9 at most, and for
 * some ops a second one inside (the probabilities of attention): 2^-8 = 4e-3.
 */
export function defaultTolerance(dtype: DType): Tolerance {
  if (dtype === "f32") return { relative: 1e-5 };
  return dtype === "bf16" ? { relative: 4e-3 } : "exact";
}

// An error norm hides a single wrong element; none may be this many times worse than the typical one.
const WORST = 16;

/** What is wrong with `actual`, or undefined. */
export function mismatch(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance,
): string | undefined {
  if (actual.length !== expected.length) {
    return `${actual.length} elements, expected ${expected.length}`;
  }
  if (tolerance === "exact") return firstDifference(actual, expected);
  if ("absolute" in tolerance) return absoluteError(actual, expected, tolerance.absolute);
  return relativeError(actual, expected, tolerance.relative);
}

function firstDifference(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): string | undefined {
  for (let i = 0; i < expected.length; i++) {
    const same =
      actual[i] === expected[i] || (Number.isNaN(actual[i]) && Number.isNaN(expected[i]));
    if (!same) return `element ${i} is ${actual[i]}, expected exactly ${expected[i]}`;
  }
  return undefined;
}

function absoluteError(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  limit: number,
): string | undefined {
  for (let i = 0; i < expected.length; i++) {
    if (!(Math.abs(actual[i]! - expected[i]!) <= limit)) {
      return `element ${i} is ${actual[i]}, expected ${expected[i]} ± ${limit}`;
    }
  }
  return undefined;
}

function relativeError(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  limit: number,
): string | undefined {
  let error = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    error += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  const typical = Math.sqrt(norm / Math.max(1, expected.length));
  for (let i = 0; i < expected.length; i++) {
    const allowed = WORST * limit * (Math.abs(expected[i]!) + typical);
    if (!(Math.abs(actual[i]! - expected[i]!) <= allowed)) {
      return `element ${i} is ${actual[i]}, expected ${expected[i]} ± ${allowed.toExponential(2)}`;
    }
  }
  const relative = norm === 0 ? Math.sqrt(error) : Math.sqrt(error / norm);
  if (relative <= limit) return undefined;
  return `relative error ${relative.toExponential(3)}, expected at most ${limit}`;
}
