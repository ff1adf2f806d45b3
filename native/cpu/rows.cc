// Rows to and from the LM head, which runs on the scored rows only.
//   gather : y[n]  = x[rows[n]]                            zeros where rows[n] = -1
//   scatter: dx[t] = dy[sources[t][0]] + dy[sources[t][1]]  its transpose, by the host-built
//   inverse list: a row
//            is the source of at most two responses, so dx is written once and in a fixed order.
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

void gather_rows(Context&, Tensor y, Tensor x, Tensor rows) {
  check_indices("gather_rows", "rows", rows, -1, x.rows());
  const int32_t* source = rows.row<int32_t>(0);
  const auto bytes = static_cast<std::size_t>(x.row_size() * size_of(x.dtype));
  with_dtype(x.dtype, [&]<class T>(T*) {
    parallel_rows(y.rows(), 2 * static_cast<int64_t>(bytes), [&](int64_t n) {
      if (source[n] < 0) {
        std::memset(y.row<char>(0) + n * y.row_stride * static_cast<int64_t>(sizeof(T)), 0, bytes);
      } else {
        std::memcpy(y.row<T>(n), x.row<T>(source[n]), bytes);
      }
    });
  });
}

void scatter_rows(Context&, Tensor dx, Tensor dy, Tensor sources) {
  check_indices("scatter_rows", "sources", sources, -1, dy.rows());
  const int64_t C = dx.row_size();
  with_dtype(dx.dtype, [&]<class T>(T*) {
    parallel_rows(dx.rows(), 3 * C * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const int32_t* source = sources.row<int32_t>(t);
      const T* a = source[0] < 0 ? nullptr : dy.row<T>(source[0]);
      const T* b = source[1] < 0 ? nullptr : dy.row<T>(source[1]);
      T* out = dx.row<T>(t);
      for_lanes(C, [&](int64_t c, int64_t k) {
        Vec sum = a ? load(a + c, k) : splat(0.0f);
        if (b) sum = a ? sum + load(b + c, k) : load(b + c, k);
        store(out + c, sum, k);
      });
    });
  });
}

}  // namespace simper::cpu
