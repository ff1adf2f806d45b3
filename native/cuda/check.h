#pragma once
#include "cuda/context.h"
#include "cuda/simt/simt.h"

namespace simper::cuda {

// Whether an index may be used. One that may not is noted, and the kernel goes on without it.
SIMT_DEVICE bool check_index(const IndexCheck& check, int64_t position, int32_t value) {
  if (value >= check.low && value < check.high) return true;
  if (simt::atomic_compare_exchange(&check.fault->check, -1, check.id) == -1) {
    check.fault->position = static_cast<int32_t>(position);
    check.fault->value = value;
  }
  return false;
}

}  // namespace simper::cuda
