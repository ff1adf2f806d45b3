// The second half of a sum over rows (partial_sums.h). A block has 32 columns; warp w adds the rows
// w, w + 8, ... of the partial sums, and the first warp the eight results.
#include "cuda/partial_sums.h"

#include "cuda/dispatch.h"

namespace simper::cuda {

namespace {

constexpr int kGroups = 8;

SIMT_KERNEL(32 * kGroups)
add_partials_kernel(float* out, const float* partials, int64_t blocks, int64_t stride,
                    int64_t columns) {
  SIMT_SHARED(memory);
  float* group_sums = memory.take<float>(32 * kGroups);
  const int64_t c = static_cast<int64_t>(simt::block().x) * 32 + simt::lane();
  float sum = 0;
  if (c < columns) {
#pragma unroll 8
    for (int64_t b = simt::warp(); b < blocks; b += kGroups) sum += partials[b * stride + c];
  }
  group_sums[simt::thread()] = sum;
  simt::barrier();
  if (simt::warp() > 0 || c >= columns) return;
  float total = 0;
#pragma unroll
  for (int group = 0; group < kGroups; ++group) total += group_sums[group * 32 + simt::lane()];
  out[c] += total;
}

}  // namespace

void add_partials(CudaContext& cuda, float* out, const float* partials, int64_t blocks,
                  int64_t stride, int64_t columns) {
  const simt::Grid grid{static_cast<unsigned>((columns + 31) / 32)};
  simt::launch<add_partials_kernel>(cuda, grid, 32 * kGroups, 32 * kGroups * 4, out, partials,
                                    blocks, stride, columns);
}

}  // namespace simper::cuda
