#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "core/error.h"
#include "core/tensor.h"

// Loops over the threads of the stream. OpenMP's thread count is set on the stream's own thread, so
// that two streams (or two worker_threads) never share a setting.
namespace simper::cpu {

// f(begin, end) on contiguous ranges of [0, n), one per thread; small n stays on one thread.
template <class F>
void parallel_ranges(int64_t n, int64_t grain, F&& f) {
  const int64_t parts = std::max<int64_t>(1, (n + grain - 1) / std::max<int64_t>(grain, 1));
  if (parts == 1) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
#pragma omp parallel
  {
    const int64_t team = omp_get_num_threads(), thread = omp_get_thread_num();
    const int64_t begin = n * thread / team, end = n * (thread + 1) / team;
    if (begin < end) f(begin, end);
  }
}

// f(t) for every row; `row_bytes` is what one row touches, so that tiny inputs are not spread over
// threads.
template <class F>
void parallel_rows(int64_t rows, int64_t row_bytes, F&& f) {
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(row_bytes, 1));
  parallel_ranges(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) f(t);
  });
}

// f(begin, end) on the blocks [0, block), [block, 2·block) ... of [0, n): unlike parallel_ranges,
// the cuts do not depend on the number of threads.
template <class F>
void parallel_blocks(int64_t n, int64_t block, F&& f) {
  parallel_ranges((n + block - 1) / block, 2, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) f(i * block, std::min((i + 1) * block, n));
  });
}

// f(i) for every i, handed out one by one: for tasks of unequal length. Tasks must not depend on
// who runs them.
template <class F>
void parallel_tasks(int64_t n, F&& f) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < n; ++i) f(i);
}

// Calls f with a null pointer of the tensor's element type: `with_dtype(x.dtype, [&]<class T>(T*)
// {...})`.
template <class F>
void with_dtype(DType dtype, F&& f) {
  if (dtype == DType::f32) return f(static_cast<float*>(nullptr));
  if (dtype == DType::bf16) return f(static_cast<bf16*>(nullptr));
  throw ContractError(std::string("dtype ") + name_of(dtype) +
                      " reached a kernel that takes f32 or bf16");
}

}  // namespace simper::cpu
