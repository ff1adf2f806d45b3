// x += bias on every row; its gradient is the sum of dy over rows.
#include "cpu/parallel.h"
#include "cpu/row_sums.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

void add_bias(Context&, Tensor x, Tensor bias) {
  const int64_t N = x.row_size();
  with_dtype(x.dtype, [&]<class T>(T*) {
    const T* b = bias.row<T>(0);
    parallel_rows(x.rows(), 2 * N * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      T* row = x.row<T>(t);
      for_lanes(
          N, [&](int64_t n, int64_t k) { store(row + n, load(row + n, k) + load(b + n, k), k); });
    });
  });
}

void bias_backward(Context&, Tensor d_bias, Tensor dy) {
  const int64_t N = dy.row_size();
  with_dtype(dy.dtype, [&]<class T>(T*) {
    const RowSums sums(dy.rows(), N, [&](float* partial, int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const T* row = dy.row<T>(t);
        for_lanes(N, [&](int64_t n, int64_t k) {
          store(partial + n, load(partial + n, k) + load(row + n, k), k);
        });
      }
    });
    sums.add_to(d_bias.row<float>(0), 0, N);
  });
}

}  // namespace simper::cpu
