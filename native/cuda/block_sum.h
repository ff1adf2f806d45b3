#pragma once
#include "cuda/simt/simt.h"

namespace simper::cuda {

// The sum over a block of whole warps in f64, in every thread: by halves over the lanes of a warp,
// then warp after warp. `partials` has one double per warp and may be used again after the next
// barrier.
SIMT_DEVICE double block_sum(double value, double* partials) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += simt::shuffle_xor(value, mask);
  if (simt::lane() == 0) partials[simt::warp()] = value;
  simt::barrier();
  double total = 0;
  for (unsigned w = 0; w < simt::threads() / 32; ++w) total += partials[w];
  return total;
}

}  // namespace simper::cuda
