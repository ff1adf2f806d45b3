// y = x · rstd · weight,  rstd = 1/sqrt(mean_c x² + eps)                 [Zhang & Sennrich 2019]
// With g = dy · weight:   dx = rstd·(g − x·rstd²·mean_c(g·x)),   d_weight += sum_t dy·x·rstd.
#include <cmath>

#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

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
void backward_row(T* dx, T* y, float* d_weight, const T* dy, const T* x, const T* weight,
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

// One pass over dy and x. Blocks of rows, cut by T alone, keep partial sums of d_weight that are
// then added block after block: the result does not depend on the number of threads.
template <bool kAdd>
void backward(Tensor dx, Tensor y, Tensor d_weight, Tensor dy, Tensor x, Tensor weight,
              Tensor rstd) {
  constexpr int64_t kMaxBlocks = 128;
  const int64_t T = x.rows(), C = x.row_size();
  const int64_t block = std::max<int64_t>(16, (T + kMaxBlocks - 1) / kMaxBlocks);
  const int64_t blocks = (T + block - 1) / block;
  float* partials = scratch<float>(blocks * C);
  float* d_weight_sum = d_weight.row<float>(0);
  const float* rstd_of = rstd.row<float>(0);

  with_dtype(x.dtype, [&]<class E>(E*) {
    const E* w = weight.row<E>(0);
    parallel_blocks(T, block, [&](int64_t begin, int64_t end) {
      float* partial = partials + begin / block * C;
      std::fill(partial, partial + C, 0.0f);
      for (int64_t t = begin; t < end; ++t) {
        backward_row<E, kAdd>(dx.row<E>(t), y.row<E>(t), partial, dy.row<E>(t), x.row<E>(t), w,
                              rstd_of[t], C);
      }
    });
  });
  parallel_blocks(C, 256, [&](int64_t begin, int64_t end) {
    for_lanes(end - begin, [&](int64_t i, int64_t k) {
      Vec total{};
      for (int64_t b = 0; b < blocks; ++b) total += load(partials + b * C + begin + i, k);
      float* out = d_weight_sum + begin + i;
      store(out, load(out, k) + total, k);
    });
  });
}

}  // namespace

void rmsnorm_forward(Context&, Tensor y, Tensor rstd, Tensor x, Tensor weight, float eps) {
  const int64_t C = x.row_size();
  float* rstd_of = rstd.row<float>(0);
  with_dtype(x.dtype, [&]<class T>(T*) {
    parallel_rows(x.rows(), 2 * C * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const T* row = x.row<T>(t);
      Vec squares{};
      for_lanes(C, [&](int64_t c, int64_t k) {
        const Vec v = load(row + c, k);
        squares += v * v;
      });
      rstd_of[t] = normalize(y.row<T>(t), row, weight.row<T>(0), C, eps, sum(squares));
    });
  });
}

void add_rmsnorm_forward(Context&, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor branch,
                         Tensor weight, float eps) {
  const int64_t C = x.row_size();
  float* rstd_of = rstd.row<float>(0);
  with_dtype(x.dtype, [&]<class T>(T*) {
    parallel_rows(x.rows(), 4 * C * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const T *a = x.row<T>(t), *b = branch.row<T>(t);
      T* s = sum.row<T>(t);
      Vec squares{};
      for_lanes(C, [&](int64_t c, int64_t k) {
        store(s + c, load(a + c, k) + load(b + c, k), k);
        const Vec v = load(s + c, k);  // as stored: the backward reads the rounded sum too
        squares += v * v;
      });
      rstd_of[t] = normalize(y.row<T>(t), s, weight.row<T>(0), C, eps, cpu::sum(squares));
    });
  });
}

void rmsnorm_backward(Context&, Tensor dx, Tensor d_weight, Tensor dy, Tensor x, Tensor weight,
                      Tensor rstd) {
  backward<false>(dx, dx, d_weight, dy, x, weight, rstd);
}

void rmsnorm_backward_add(Context&, Tensor dx, Tensor y, Tensor d_weight, Tensor dy, Tensor x,
                          Tensor weight, Tensor rstd) {
  backward<true>(dx, y, d_weight, dy, x, weight, rstd);
}

}  // namespace simper::cpu
