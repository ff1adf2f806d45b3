#pragma once
#include <cmath>

#include "cpu/simd.h"

// RMSNorm of one row of C elements, which rmsnorm.cc applies to rows of x and qk_norm.cc to heads.
namespace simper::cpu {

template <class T>
Vec square_lanes(const T* x, int64_t C) {
  Vec squares{};
  for_lanes(C, [&](int64_t c, int64_t k) {
    const Vec v = load(x + c, k);
    squares += v * v;
  });
  return squares;
}

// y = x·rstd·weight; returns rstd. y may be x.
template <class T>
float normalize(T* y, const T* x, const T* weight, int64_t C, float eps, float square_sum) {
  const float rstd = 1.0f / std::sqrt(square_sum / static_cast<float>(C) + eps);
  for_lanes(C, [&](int64_t c, int64_t k) {
    store(y + c, load(x + c, k) * rstd * load(weight + c, k), k);
  });
  return rstd;
}

// One row of the backward; dy·x·rstd is added to the row of partial sums. With kAdd dx accumulates,
// and y is what the forward wrote, to the bit. dx may be dy, or y may.
template <class T, bool kAdd>
void norm_backward_row(T* dx, T* y, float* d_weight, const T* dy, const T* x, const T* weight,
                       float rstd, int64_t C) {
  Vec dots{};
  for_lanes(C, [&](int64_t c, int64_t k) {
    dots += load(dy + c, k) * load(weight + c, k) * load(x + c, k);
  });
  const float scale = rstd * rstd * (sum(dots) / static_cast<float>(C));
  for_lanes(C, [&](int64_t c, int64_t k) {
    const Vec dyc = load(dy + c, k), xc = load(x + c, k), w = load(weight + c, k);
    const Vec unit = xc * rstd;
    store(d_weight + c, load(d_weight + c, k) + dyc * unit, k);
    Vec d = (dyc * w - xc * scale) * rstd;
    if constexpr (kAdd) {
      d += load(dx + c, k);
      store(y + c, unit * w, k);
    }
    store(dx + c, d, k);
  });
}

}  // namespace simper::cpu
