#pragma once
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"

namespace simper::cpu {

// Sums over rows, such as the gradient of a weight that every row shares. Blocks of rows, cut by
// their number alone, keep partial sums that are then added block after block: the result does not
// depend on the number of threads.
class RowSums {
 public:
  // add_rows(sums, begin, end) adds what rows [begin, end) give to `columns` sums.
  template <class F>
  RowSums(int64_t rows, int64_t columns, F&& add_rows) : columns_(columns) {
    constexpr int64_t kMaxBlocks = 128;
    const int64_t block = std::max<int64_t>(16, (rows + kMaxBlocks - 1) / kMaxBlocks);
    blocks_ = (rows + block - 1) / block;
    partials_ = scratch<float>(blocks_ * columns);
    parallel_blocks(rows, block, [&](int64_t begin, int64_t end) {
      float* sums = partials_ + begin / block * columns_;
      std::fill(sums, sums + columns_, 0.0f);
      add_rows(sums, begin, end);
    });
  }

  // out += the sums of columns [first, first + count).
  void add_to(float* out, int64_t first, int64_t count) const {
    parallel_blocks(count, 256, [&](int64_t begin, int64_t end) {
      for_lanes(end - begin, [&](int64_t i, int64_t k) {
        Vec total{};
        for (int64_t b = 0; b < blocks_; ++b) {
          total += load(partials_ + b * columns_ + first + begin + i, k);
        }
        store(out + begin + i, load(out + begin + i, k) + total, k);
      });
    });
  }

 private:
  int64_t columns_, blocks_;
  float* partials_;
};

}  // namespace simper::cpu
