// Attention called directly: forward and backward on a device, checked against plain JavaScript.
//   node examples/attention.mjs
import { openDevice } from "simper-native/native";

const [T, H, K, D] = [12, 4, 2, 8]; // tokens, query heads, key/value heads, head dim
const columns = (H + 2 * K) * D; //    a row of qkv: query heads, key heads, value heads
// Two segments {start, end, prefix_start, prefix_end}; the second one also sees the first four rows.
const segments = Int32Array.of(0, 7, 0, 0, 7, 12, 0, 4);
const qkv = Float32Array.from({ length: T * columns }, (_, i) => Math.sin(1 + 0.7 * i));
const dO = Float32Array.from({ length: T * H * D }, (_, i) => Math.cos(2 + 1.3 * i));

/** The same in textbook form: o, and the gradient of Σ o·dO with respect to qkv. */
function textbook() {
  const o = new Float64Array(T * H * D);
  const dQkv = new Float64Array(T * columns);
  for (let s = 0; s < segments.length; s += 4) {
    const [start, end, prefixStart, prefixEnd] = segments.subarray(s, s + 4);
    for (let t = start; t < end; t++) {
      const seen = (j) => (j >= prefixStart && j < prefixEnd) || (j >= start && j <= t);
      const keys = Array.from({ length: T }, (_, j) => j).filter(seen);
      for (let h = 0; h < H; h++) {
        const kv = Math.floor((h * K) / H);
        const query = t * columns + h * D;
        const key = (j) => j * columns + (H + kv) * D;
        const value = (j) => j * columns + (H + K + kv) * D;
        const out = (t * H + h) * D;
        const dot = (a, i, b, j) => {
          let sum = 0;
          for (let d = 0; d < D; d++) sum += a[i + d] * b[j + d];
          return sum;
        };
        const weights = keys.map((j) => Math.exp(dot(qkv, query, qkv, key(j)) / Math.sqrt(D)));
        const total = weights.reduce((a, b) => a + b);
        const p = weights.map((w) => w / total);
        keys.forEach((j, i) => {
          for (let d = 0; d < D; d++) o[out + d] += p[i] * qkv[value(j) + d];
        });
        const delta = dot(dO, out, o, out);
        keys.forEach((j, i) => {
          const dScore = (p[i] * (dot(dO, out, qkv, value(j)) - delta)) / Math.sqrt(D);
          for (let d = 0; d < D; d++) {
            dQkv[value(j) + d] += p[i] * dO[out + d];
            dQkv[query + d] += dScore * qkv[key(j) + d];
            dQkv[key(j) + d] += dScore * qkv[query + d];
          }
        });
      }
    }
  }
  return { o, dQkv };
}

const difference = (a, b) => a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

const device = openDevice("cpu");
const s = device.stream();
const arena = device.arena(1 << 20, "attention");
try {
  const tensor = (shape) => arena.tensor("f32", shape);
  const [x, dx] = [0, 1].map(() => tensor([T, columns]));
  const [o, gradient, lse, delta] = [H * D, H * D, H, H].map((n) => tensor([T, n]));
  const ranges = arena.tensor("i32", [segments.length / 4, 4]);
  s.write(x, qkv);
  s.write(gradient, dO);
  s.write(ranges, segments);
  s.attentionForward(o, lse, x, ranges, H, K, 0); // enqueued; nothing has been waited for yet
  s.attentionBackward(dx, delta, gradient, o, lse, x, ranges, H, K, 0);
  const expected = textbook();
  const off = [
    difference(expected.o, await s.read(o)),
    difference(expected.dQkv, await s.read(dx)),
  ];
  console.log(`largest difference: o ${off[0].toExponential(1)}, dQkv ${off[1].toExponential(1)}`);
  if (!off.every((most) => most < 1e-5)) throw new Error("attention differs from the textbook");
} finally {
  s.dispose();
  arena.dispose();
  device.dispose();
}
