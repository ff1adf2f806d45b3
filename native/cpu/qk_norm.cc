// RMSNorm of each q and k head over its D columns, before the rotation, as Qwen3 has it
// [Yang et al. 2025]. The formulas are those of rmsnorm.cc, with C = D; q heads share q_weight and
// k heads k_weight, so that their gradients are sums over rows and heads, in that order. The v
// heads pass through.
#include <cstring>

#include "cpu/norm_row.h"
#include "cpu/parallel.h"
#include "cpu/row_sums.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

template <class T>
void copy_values(T* to, const T* from, int64_t heads, int64_t kv_heads, int64_t D) {
  if (to == from) return;
  const int64_t first = (heads + kv_heads) * D;
  std::memcpy(to + first, from + first, static_cast<std::size_t>(kv_heads * D) * sizeof(T));
}

}  // namespace

void qk_norm_forward(Context&, Tensor y, Tensor rstd, Tensor x, Tensor q_weight, Tensor k_weight,
                     int64_t heads, int64_t kv_heads, float eps) {
  const int64_t D = q_weight.rows();
  with_dtype(x.dtype, [&]<class T>(T*) {
    const T *q = q_weight.row<T>(0), *k = k_weight.row<T>(0);
    parallel_rows(x.rows(), 2 * x.row_size() * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const T* from = x.row<T>(t);
      T* to = y.row<T>(t);
      float* rstd_of = rstd.row<float>(t);
      for (int64_t h = 0; h < heads + kv_heads; ++h) {
        const T* head = from + h * D;
        const float squares = sum(square_lanes(head, D));
        rstd_of[h] = normalize(to + h * D, head, h < heads ? q : k, D, eps, squares);
      }
      copy_values(to, from, heads, kv_heads, D);
    });
  });
}

void qk_norm_backward(Context&, Tensor dx, Tensor d_q_weight, Tensor d_k_weight, Tensor dy,
                      Tensor x, Tensor q_weight, Tensor k_weight, Tensor rstd, int64_t heads,
                      int64_t kv_heads) {
  const int64_t D = q_weight.rows();
  with_dtype(x.dtype, [&]<class T>(T*) {
    const T *q = q_weight.row<T>(0), *k = k_weight.row<T>(0);
    const RowSums sums(x.rows(), 2 * D, [&](float* partial, int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* rstd_of = rstd.row<float>(t);
        T* to = dx.row<T>(t);
        for (int64_t h = 0; h < heads + kv_heads; ++h) {
          const bool query = h < heads;
          T* head = to + h * D;
          norm_backward_row<T, false>(head, head, query ? partial : partial + D,
                                      dy.row<T>(t) + h * D, x.row<T>(t) + h * D, query ? q : k,
                                      rstd_of[h], D);
        }
        copy_values<T>(to, dy.row<T>(t), heads, kv_heads, D);
      }
    });
    sums.add_to(d_q_weight.row<float>(0), 0, D);
    sums.add_to(d_k_weight.row<float>(0), D, D);
  });
}

}  // namespace simper::cpu
