// y = x · rstd · weight,  rstd = 1/sqrt(mean_c x² + eps)                 [Zhang & Sennrich 2019]
// With g = dy · weight:   dx = rstd·(g − x·rstd²·mean_c(g·x)),   d_weight += sum_t dy·x·rstd.
#include "cpu/norm_row.h"
#include "cpu/parallel.h"
#include "cpu/row_sums.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

// One pass over dy and x.
template <bool kAdd>
void backward(Tensor dx, Tensor y, Tensor d_weight, Tensor dy, Tensor x, Tensor weight,
              Tensor rstd) {
  const int64_t C = x.row_size();
  const float* rstd_of = rstd.row<float>(0);
  with_dtype(x.dtype, [&]<class E>(E*) {
    const E* w = weight.row<E>(0);
    const RowSums sums(x.rows(), C, [&](float* partial, int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        norm_backward_row<E, kAdd>(dx.row<E>(t), y.row<E>(t), partial, dy.row<E>(t), x.row<E>(t), w,
                                   rstd_of[t], C);
      }
    });
    sums.add_to(d_weight.row<float>(0), 0, C);
  });
}

}  // namespace

void rmsnorm_forward(Context&, Tensor y, Tensor rstd, Tensor x, Tensor weight, float eps) {
  const int64_t C = x.row_size();
  float* rstd_of = rstd.row<float>(0);
  with_dtype(x.dtype, [&]<class T>(T*) {
    parallel_rows(x.rows(), 2 * C * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const T* row = x.row<T>(t);
      const float squares = sum(square_lanes(row, C));
      rstd_of[t] = normalize(y.row<T>(t), row, weight.row<T>(0), C, eps, squares);
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
