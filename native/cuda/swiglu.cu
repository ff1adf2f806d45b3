// hidden = silu(gate)·up,  silu(g) = g·s,  s = 1/(1 + e^−g)                        [Shazeer 2020]
// d_up = d_hidden·silu(gate),  d_gate = d_hidden·up·s·(1 + gate·(1 − s)).    gate_up row: {gate,
// up}
//
// A thread owns N neighbouring elements of a row: forward 3, backward 6 accesses per element of
// `hidden`. Both directions compute `hidden` with the same operations, so that its bits are the
// same.
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

SIMT_DEVICE float sigmoid(float x) {
  constexpr float kLog2e = 1.44269504089f, kLargest = 88.37f;  // e^−x stays finite
  const float power = -x > kLargest ? kLargest : -x;
  return 1.0f / (1.0f + simt::exp2_fast(power * kLog2e));
}

template <class T, int N>
SIMT_KERNEL(256)
swiglu_forward_kernel(Rows<T> hidden, Rows<const T> gate_up, int64_t F, unsigned parts) {
  const Piece at = piece<N>(parts);
  if (at.column >= F) return;
  const T* gates = gate_up[at.row] + at.column;
  float gate[N], up[N], out[N];
  load_floats<N>(gate, gates);
  load_floats<N>(up, gates + F);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
  store_floats<N>(hidden[at.row] + at.column, out);
}

// d_gate_up may be gate_up, and hidden d_hidden: a thread reads all of its elements before it
// writes.
template <class T, int N>
SIMT_KERNEL(256)
swiglu_backward_kernel(Rows<T> d_gate_up, Rows<T> hidden, Rows<const T> d_hidden,
                       Rows<const T> gate_up, int64_t F, unsigned parts) {
  const Piece at = piece<N>(parts);
  if (at.column >= F) return;
  const T* gates = gate_up[at.row] + at.column;
  float gate[N], up[N], d[N], out[N];
  load_floats<N>(gate, gates);
  load_floats<N>(up, gates + F);
  load_floats<N>(d, d_hidden[at.row] + at.column);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float s = sigmoid(gate[i]), silu = gate[i] * s, d_out = d[i];
    out[i] = silu * up[i];
    d[i] = d_out * silu;
    gate[i] = d_out * up[i] * s * (1.0f + gate[i] * (1.0f - s));
  }
  T* d_gates = d_gate_up[at.row] + at.column;
  store_floats<N>(d_gates, gate);
  store_floats<N>(d_gates + F, d);
  store_floats<N>(hidden[at.row] + at.column, out);
}

}  // namespace

void swiglu_forward(Context& context, Tensor hidden, Tensor gate_up) {
  const int64_t F = hidden.row_size();
  with_dtype(hidden.dtype, [&]<class T>(T*) {
    with_width<kVector<T>>(moves_16(hidden, gate_up), [&]<int N>(Width<N>) {
      const Cover cover(hidden.rows(), F, N);
      simt::launch<swiglu_forward_kernel<T, N>>(cuda_of(context), cover.grid, cover.threads, 0,
                                                rows_of<T>(hidden), rows_of<const T>(gate_up), F,
                                                cover.parts);
    });
  });
}

void swiglu_backward(Context& context, Tensor d_gate_up, Tensor hidden, Tensor d_hidden,
                     Tensor gate_up) {
  const int64_t F = d_hidden.row_size();
  with_dtype(d_hidden.dtype, [&]<class T>(T*) {
    const bool wide = moves_16(d_gate_up, hidden, d_hidden, gate_up);
    with_width<kVector<T>>(wide, [&]<int N>(Width<N>) {
      const Cover cover(hidden.rows(), F, N);
      simt::launch<swiglu_backward_kernel<T, N>>(
          cuda_of(context), cover.grid, cover.threads, 0, rows_of<T>(d_gate_up), rows_of<T>(hidden),
          rows_of<const T>(d_hidden), rows_of<const T>(gate_up), F, cover.parts);
    });
  });
}

}  // namespace simper::cuda
