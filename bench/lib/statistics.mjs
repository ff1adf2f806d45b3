/** @typedef {{ median: number, min: number, max: number, n: number }} Spread */

/** @param {readonly number[]} values */
export function median(values) {
  if (values.length === 0) throw new RangeError("median of no values");
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = /** @type {number} */ (sorted[half]);
  return sorted.length % 2 ? upper : /** @type {number} */ (sorted[half - 1] + upper) / 2;
}

/** @param {readonly number[]} values @returns {Spread} */
export function spread(values) {
  return {
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    n: values.length,
  };
}

/** "1.50 (1.40-1.62)" @param {Spread} s @param {number} [digits] */
export function showSpread({ median, min, max }, digits = 2) {
  return `${median.toFixed(digits)} (${min.toFixed(digits)}-${max.toFixed(digits)})`;
}
