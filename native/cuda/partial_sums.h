#pragma once
// Sums over rows, such as the gradient of a weight that every row shares: each block of rows leaves
// its partial sums, and a second kernel adds them block after block.
#include <algorithm>
#include <cstdint>

#include "cuda/context.h"

namespace simper::cuda {

// How T rows are cut: `rows` per block, at most kMaxBlocks blocks. It depends on T alone, so that a
// sum has the same bits on every device.
struct RowBlocks {
  int64_t rows, count;

  explicit RowBlocks(int64_t T_rows) {
    constexpr int64_t kMinRows = 8, kMaxBlocks = 512;
    rows = std::max(kMinRows, (T_rows + kMaxBlocks - 1) / kMaxBlocks);
    count = (T_rows + rows - 1) / rows;
  }
};

// out[c] += sum over b of partials[b · stride + c], c < columns.
void add_partials(CudaContext& cuda, float* out, const float* partials, int64_t blocks,
                  int64_t stride, int64_t columns);

}  // namespace simper::cuda
