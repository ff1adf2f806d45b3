#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace simper {

constexpr int32_t kMaxRank = 4;

// A non-owning view of device memory, passed by value. Rows (the first dimension) are `row_stride`
// elements apart; inside a row the elements are contiguous, last dimension fastest.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int32_t rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t row_stride = 0;

  int64_t rows() const { return shape[0]; }
  int64_t row_size() const {
    int64_t size = 1;
    for (int32_t i = 1; i < rank; ++i) size *= shape[i];
    return size;
  }
  int64_t size() const { return rows() * row_size(); }
  bool dense() const { return row_stride == row_size() || rows() <= 1; }

  // First element of row `t`; the caller has checked that the dtype is T's.
  template <class T>
  T* row(int64_t t) const {
    return static_cast<T*>(data) + t * row_stride;
  }
};

// Which operand of c = a · b is transposed: nt is the forward of a linear layer, x · weightᵀ.
enum class MatmulForm : int32_t { nn, nt, tn };

}  // namespace simper
