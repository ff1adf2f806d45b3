// x[...] = value.
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

void fill(Context&, Tensor x, float value) {
  constexpr int64_t kBlock = 1 << 14;
  with_dtype(x.dtype, [&]<class T>(T*) {
    const Vec v = splat(value);
    // A dense tensor is one long row: vectors are rank 1 and would otherwise be rows of one
    // element.
    const int64_t rows = x.dense() ? 1 : x.rows(), columns = x.dense() ? x.size() : x.row_size();
    for (int64_t t = 0; t < rows; ++t) {
      T* row = x.row<T>(t);
      parallel_blocks(columns, kBlock, [&](int64_t begin, int64_t end) {
        for_lanes(end - begin, [&](int64_t i, int64_t k) { store(row + begin + i, v, k); });
      });
    }
  });
}

}  // namespace simper::cpu
