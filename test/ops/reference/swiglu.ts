import { type Matrix, zeros } from "./matrix.js";

/** hidden = silu(gate)·up; a row of gateUp is {gate, up}. [Shazeer 2020] */
export function swigluForward(gateUp: Matrix): Float64Array {
  const F = gateUp.columns / 2;
  const hidden = zeros(gateUp.rows, F).data;
  for (let t = 0; t < gateUp.rows; t++) {
    for (let f = 0; f < F; f++) {
      const gate = gateUp.data[t * 2 * F + f]!;
      const up = gateUp.data[t * 2 * F + F + f]!;
      hidden[t * F + f] = (gate / (1 + Math.exp(-gate))) * up;
    }
  }
  return hidden;
}

/** dGate = dHidden·up·s·(1 + gate·(1 − s)), dUp = dHidden·gate·s with s = 1/(1 + e^−gate). */
export function swigluBackward(dHidden: Float64Array, gateUp: Matrix): Float64Array {
  const F = gateUp.columns / 2;
  const dGateUp = zeros(gateUp.rows, 2 * F).data;
  for (let t = 0; t < gateUp.rows; t++) {
    for (let f = 0; f < F; f++) {
      const i = t * 2 * F + f;
      const gate = gateUp.data[i]!;
      const s = 1 / (1 + Math.exp(-gate));
      const d = dHidden[t * F + f]!;
      dGateUp[i] = d * gateUp.data[i + F]! * s * (1 + gate * (1 - s));
      dGateUp[i + F] = d * gate * s;
    }
  }
  return dGateUp;
}
