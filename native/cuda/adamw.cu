// AdamW [Loshchilov & Hutter 2019] on one flat range, in one pass over the states:
//   g = factor·grad,   m = β1·m + (1−β1)·g,   v = β2·v + (1−β2)·g²
//   master −= lr·(m/(1−β1ᵗ) / (sqrt(v/(1−β2ᵗ)) + eps) + weight_decay·master),   weight = master,
//   rounded
// A thread takes four elements: reads master, m, v and grad, writes master, m, v and weight, 30
// bytes per element with bf16 weights. The norm is read here, so that the host need not wait for
// it: one that is not finite changes nothing.
#include <cmath>

#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

struct Settings {
  float keep1, take1, keep2, take2;  // β and 1 − β
  float correct1, correct2;          // 1/(1 − βᵗ)
  float rate, decay, epsilon;
};

template <class T>
struct States {
  T* weight;
  float *master, *m, *v;
  const float* grad;
};

SIMT_DEVICE bool is_finite(float x) {
  return x - x == 0.0f;
}

template <int N, class T>
SIMT_DEVICE void update(const States<T>& at, int64_t i, float factor, const Settings& s) {
  float master[N], m[N], v[N], grad[N];
  load_floats<N>(master, at.master + i);
  load_floats<N>(m, at.m + i);
  load_floats<N>(v, at.v + i);
  load_floats<N>(grad, at.grad + i);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float g = grad[j] * factor;
    m[j] = m[j] * s.keep1 + g * s.take1;
    v[j] = v[j] * s.keep2 + g * g * s.take2;
    const float step = m[j] * s.correct1 / (sqrtf(v[j] * s.correct2) + s.epsilon);
    master[j] -= (step + master[j] * s.decay) * s.rate;
  }
  store_floats<N>(at.m + i, m);
  store_floats<N>(at.v + i, v);
  store_floats<N>(at.master + i, master);
  store_floats<N>(at.weight + i, master);  // may be master
}

template <class T, int N>
SIMT_KERNEL(256)
adamw_kernel(States<T> states, const float* clip, int64_t n, Settings settings) {
  const int64_t i = (static_cast<int64_t>(simt::block().x) * simt::threads() + simt::thread()) * N;
  const float norm = clip[0], factor = clip[1];
  if (i >= n || !is_finite(norm) || !is_finite(factor)) return;
  if (i + N <= n) return update<N>(states, i, factor, settings);
  for (int64_t last = i; last < n; ++last) update<1>(states, last, factor, settings);
}

}  // namespace

void adamw(Context& context, Tensor weight, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor clip, double lr, double beta1, double beta2, double eps, double weight_decay,
           int64_t step) {
  // In double, once: 1 − β2 and β2ᵗ lose digits in f32.
  const Settings settings{static_cast<float>(beta1),
                          static_cast<float>(1 - beta1),
                          static_cast<float>(beta2),
                          static_cast<float>(1 - beta2),
                          static_cast<float>(1 / (1 - std::pow(beta1, static_cast<double>(step)))),
                          static_cast<float>(1 / (1 - std::pow(beta2, static_cast<double>(step)))),
                          static_cast<float>(lr),
                          static_cast<float>(weight_decay),
                          static_cast<float>(eps)};
  const int64_t n = weight.rows();
  with_dtype(weight.dtype, [&]<class T>(T*) {
    const States<T> states{weight.row<T>(0), master.row<float>(0), m.row<float>(0), v.row<float>(0),
                           grad.row<const float>(0)};
    const bool wide = starts_at(weight, 4 * sizeof(T)) && starts_at(master, 16) &&
                      starts_at(m, 16) && starts_at(v, 16) && starts_at(grad, 16);
    with_width<4>(wide, [&]<int N>(Width<N>) {
      const Cover cover(1, n, N);
      simt::launch<adamw_kernel<T, N>>(cuda_of(context), cover.grid, cover.threads, 0, states,
                                       clip.row<const float>(0), n, settings);
    });
  });
}

}  // namespace simper::cuda
