// The SimPER loss called directly: logits to log-probabilities to loss, and back to the gradient of the
// logits, checked against plain JavaScript.
//   node examples/simper-loss.mjs
import { openDevice } from "simper-native/native";

const [N, V] = [9, 16]; // scored tokens, vocabulary
// Two pairs: {begin, end, side} of each response among the scored tokens; side 0 is chosen, 1 rejected.
const responses = Int32Array.of(0, 2, 0, 2, 5, 1, 5, 8, 0, 8, 9, 1);
const labels = Int32Array.from({ length: N }, (_, n) => (7 * n + 3) % V);
const logits = Float32Array.from({ length: N * V }, (_, i) => 2 * Math.sin(1 + 1.9 * i));
const scale = 1 / 2; // the loss of a step is a mean over its pairs

/** loss = Σ ∓scale · exp(mean logp), and its gradient with respect to the logits. */
function textbook() {
  const softmax = Array.from({ length: N }, (_, n) => {
    const row = logits.subarray(n * V, (n + 1) * V);
    const total = row.reduce((sum, x) => sum + Math.exp(x), 0);
    return Array.from(row, (x) => Math.exp(x) / total);
  });
  let loss = 0;
  const dLogits = new Float64Array(N * V);
  for (let r = 0; r < responses.length; r += 3) {
    const [begin, end, side] = responses.subarray(r, r + 3);
    let sum = 0;
    for (let n = begin; n < end; n++) sum += Math.log(softmax[n][labels[n]]);
    const term = (side === 0 ? -scale : scale) * Math.exp(sum / (end - begin));
    loss += term;
    for (let n = begin; n < end; n++) {
      for (let v = 0; v < V; v++) {
        const onehot = v === labels[n] ? 1 : 0;
        dLogits[n * V + v] = (term / (end - begin)) * (onehot - softmax[n][v]);
      }
    }
  }
  return { loss, dLogits };
}

const device = openDevice("cpu");
const s = device.stream();
const arena = device.arena(1 << 16, "loss");
try {
  const vector = (n) => arena.tensor("f32", [n]);
  const R = responses.length / 3;
  const x = arena.tensor("f32", [N, V]);
  const [logp, lse, coefficient] = [vector(N), vector(N), vector(N)];
  const [mean, loss] = [vector(R), vector(R)];
  const ids = arena.tensor("i32", [N]);
  const ranges = arena.tensor("i32", [R, 3]);
  s.write(x, logits);
  s.write(ids, labels);
  s.write(ranges, responses);
  s.logprobForward(logp, lse, x, ids);
  s.simperLoss(mean, loss, coefficient, logp, ranges, scale);
  s.logprobBackward(x, x, lse, ids, coefficient); // d logits may lie over the logits
  const terms = await s.read(loss);
  const dLogits = await s.read(x);
  const expected = textbook();
  const total = terms.reduce((a, b) => a + b);
  const off = expected.dLogits.reduce((most, g, i) => Math.max(most, Math.abs(g - dLogits[i])), 0);
  console.log(`loss ${total.toFixed(6)}, expected ${expected.loss.toFixed(6)}`);
  console.log(`largest difference of the gradient: ${off.toExponential(1)}`);
  if (!(Math.abs(total - expected.loss) < 1e-6 && off < 1e-6)) throw new Error("they differ");
} finally {
  s.dispose();
  arena.dispose();
  device.dispose();
}
