import { type Matrix, zeros } from "./matrix.js";

/** y[n] = x[rows[n]], zeros where rows[n] is -1: gather, and the lookup of an embedding. */
export function gatherRows(x: Matrix, rows: Float64Array): Float64Array {
  const y = zeros(rows.length, x.columns).data;
  rows.forEach((source, n) => {
    if (source < 0) return;
    y.set(x.data.subarray(source * x.columns, (source + 1) * x.columns), n * x.columns);
  });
  return y;
}

/** dx[t] = the sum of dy over the sources of row t; -1 adds nothing. sources (T,2). */
export function scatterRows(dy: Matrix, sources: Float64Array): Float64Array {
  const C = dy.columns;
  const dx = zeros(sources.length / 2, C).data;
  sources.forEach((source, i) => {
    if (source < 0) return;
    const t = Math.floor(i / 2);
    for (let c = 0; c < C; c++) dx[t * C + c]! += dy.data[source * C + c]!;
  });
  return dx;
}

/** What is added to an embedding's gradient: dWeight[tokens[t]] += dy[t], one row after another. */
export function embeddingBackward(dy: Matrix, tokens: readonly number[], V: number): Float64Array {
  const dWeight = zeros(V, dy.columns).data;
  tokens.forEach((token, t) => {
    for (let c = 0; c < dy.columns; c++) {
      dWeight[token * dy.columns + c]! += dy.data[t * dy.columns + c]!;
    }
  });
  return dWeight;
}
