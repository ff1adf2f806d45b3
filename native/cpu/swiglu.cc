// hidden = silu(gate)·up,  silu(g) = g·s,  s = 1/(1 + e^−g)                        [Shazeer 2020]
// d_up = d_hidden·silu(gate),  d_gate = d_hidden·up·s·(1 + gate·(1 − s)).    gate_up row: {gate,
// up}
//
// Both directions compute `hidden` with the same operations, so that its bits are the same.
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

inline Vec sigmoid(Vec x) {
  return 1.0f / (1.0f + exp(-x));
}

}  // namespace

void swiglu_forward(Context&, Tensor hidden, Tensor gate_up) {
  const int64_t F = hidden.row_size();
  with_dtype(hidden.dtype, [&]<class T>(T*) {
    parallel_rows(hidden.rows(), 3 * F * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const T* gates = gate_up.row<T>(t);
      T* out = hidden.row<T>(t);
      for_lanes(F, [&](int64_t f, int64_t k) {
        const Vec gate = load(gates + f, k), up = load(gates + F + f, k);
        store(out + f, gate * sigmoid(gate) * up, k);
      });
    });
  });
}

void swiglu_backward(Context&, Tensor d_gate_up, Tensor hidden, Tensor d_hidden, Tensor gate_up) {
  const int64_t F = d_hidden.row_size();
  with_dtype(d_hidden.dtype, [&]<class T>(T*) {
    parallel_rows(d_hidden.rows(), 6 * F * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const T *gates = gate_up.row<T>(t), *d_out = d_hidden.row<T>(t);
      // May be gates, and out may be d_out: everything is read before anything is written.
      T *d_gates = d_gate_up.row<T>(t), *out = hidden.row<T>(t);
      for_lanes(F, [&](int64_t f, int64_t k) {
        const Vec gate = load(gates + f, k), up = load(gates + F + f, k), d = load(d_out + f, k);
        const Vec s = sigmoid(gate), silu = gate * s;
        store(d_gates + f, d * up * s * (1.0f + gate * (1.0f - s)), k);
        store(d_gates + F + f, d * silu, k);
        store(out + f, silu * up, k);
      });
    });
  });
}

}  // namespace simper::cpu
