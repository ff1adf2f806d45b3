// The global gradient norm, in two steps so that ranks can add their partial sums in between:
//   partials[b] = sum of x² over block b;   norm = sqrt(sum of partials), factor = min(1,
//   max_norm/(norm + 1e-6)).
// One block of threads per partial sum, 4 bytes per element. A thread adds every 256th group of
// four elements, counted from the partial's begin, so that the order of a sum does not depend on
// where it lies in memory.
#include "cuda/block_sum.h"
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr int kGroup = 4;

// Adds the squares of this thread's groups; kWide: x is aligned to 16 bytes.
template <bool kWide>
SIMT_DEVICE void add_squares(double (&sums)[kGroup], const float* x, int64_t groups) {
#pragma unroll 4
  for (int64_t g = simt::thread(); g < groups; g += simt::threads()) {
    simt::Pack<float, kGroup> pack;
    if constexpr (kWide) {
      pack = simt::load_pack<kGroup>(x + g * kGroup);
    } else {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) pack.element[i] = x[g * kGroup + i];
    }
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const double value = pack.element[i];
      sums[i] += value * value;
    }
  }
}

SIMT_KERNEL(kThreads)
sum_squares_kernel(float* partials, const float* x, int64_t n, int64_t block) {
  SIMT_SHARED(memory);
  double* warp_sums = memory.take<double>(kThreads / 32);
  const int64_t b = simt::block().x;
  const int64_t begin = b * block < n ? b * block : n;
  const int64_t count = n - begin < block ? n - begin : block;
  const float* values = x + begin;
  const int64_t groups = count / kGroup;
  double sums[kGroup] = {};
  if (reinterpret_cast<uintptr_t>(values) % 16 == 0) {
    add_squares<true>(sums, values, groups);
  } else {
    add_squares<false>(sums, values, groups);
  }
  const int64_t last = groups * kGroup + simt::thread();
  if (last < count) sums[0] += static_cast<double>(values[last]) * values[last];
  const double total = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), warp_sums);
  if (simt::thread() == 0) partials[b] = static_cast<float>(total);
}

SIMT_KERNEL(kThreads)
clip_factor_kernel(float* out, const float* partials, int64_t count, float max_norm) {
  SIMT_SHARED(memory);
  double* warp_sums = memory.take<double>(kThreads / 32);
  double sum = 0;
  for (int64_t b = simt::thread(); b < count; b += simt::threads()) sum += partials[b];
  const double norm = sqrt(block_sum(sum, warp_sums));
  if (simt::thread() > 0) return;
  const double factor = max_norm / (norm + 1e-6);
  out[0] = static_cast<float>(norm);
  // Written so that a NaN norm gives a NaN factor.
  out[1] = max_norm == 0 || factor >= 1 ? 1.0f : static_cast<float>(factor);
}

}  // namespace

void sum_squares(Context& context, Tensor partials, Tensor x) {
  const int64_t n = x.rows(), B = partials.rows();
  const simt::Grid grid{static_cast<unsigned>(B)};
  simt::launch<sum_squares_kernel>(cuda_of(context), grid, kThreads, 128, partials.row<float>(0),
                                   x.row<const float>(0), n, (n + B - 1) / B);
}

void clip_factor(Context& context, Tensor out, Tensor partials, float max_norm) {
  simt::launch<clip_factor_kernel>(cuda_of(context), simt::Grid{}, kThreads, 128, out.row<float>(0),
                                   partials.row<const float>(0), partials.rows(), max_norm);
}

}  // namespace simper::cuda
