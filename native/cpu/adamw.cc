// AdamW [Loshchilov & Hutter 2019] on one flat range, in one pass over the states:
//   g = factor·grad,   m = β1·m + (1−β1)·g,   v = β2·v + (1−β2)·g²
//   master −= lr·(m/(1−β1ᵗ) / (sqrt(v/(1−β2ᵗ)) + eps) + weight_decay·master),   weight = master,
//   rounded
#include <cmath>

#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

void adamw(Context&, Tensor weight, Tensor master, Tensor m, Tensor v, Tensor grad, Tensor clip,
           double lr, double beta1, double beta2, double eps, double weight_decay, int64_t step) {
  const float norm = clip.row<float>(0)[0], factor = clip.row<float>(0)[1];
  if (!std::isfinite(norm) || !std::isfinite(factor)) return;

  // In double, once: 1 − β2 and β2ᵗ lose digits in f32.
  const auto keep1 = static_cast<float>(beta1), take1 = static_cast<float>(1 - beta1);
  const auto keep2 = static_cast<float>(beta2), take2 = static_cast<float>(1 - beta2);
  const auto correct1 = static_cast<float>(1 / (1 - std::pow(beta1, static_cast<double>(step))));
  const auto correct2 = static_cast<float>(1 / (1 - std::pow(beta2, static_cast<double>(step))));
  const auto rate = static_cast<float>(lr), decay = static_cast<float>(weight_decay);
  const auto epsilon = static_cast<float>(eps);

  with_dtype(weight.dtype, [&]<class T>(T*) {
    T* weights = weight.row<T>(0);
    float *masters = master.row<float>(0), *ms = m.row<float>(0), *vs = v.row<float>(0);
    const float* grads = grad.row<float>(0);
    constexpr int64_t kBlock = 1 << 13;
    parallel_blocks(weight.rows(), kBlock, [&](int64_t begin, int64_t end) {
      for_lanes(end - begin, [&](int64_t offset, int64_t k) {
        const int64_t i = begin + offset;
        const Vec g = load(grads + i, k) * factor;
        const Vec first = load(ms + i, k) * keep1 + g * take1;
        const Vec second = load(vs + i, k) * keep2 + g * g * take2;
        const Vec old = load(masters + i, k);
        const Vec update = first * correct1 / (sqrt(second * correct2) + epsilon) + old * decay;
        const Vec updated = old - update * rate;
        store(ms + i, first, k);
        store(vs + i, second, k);
        store(masters + i, updated, k);
        store(weights + i, updated, k);
      });
    });
  });
}

}  // namespace simper::cpu
