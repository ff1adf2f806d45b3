#pragma once
#include "cuda/context.h"
#include "cuda/simt/simt.h"

namespace simper::cuda {

// Notes what a kernel found in a table, unless something was found before.
SIMT_DEVICE void report(const IndexCheck& check, int64_t position, int32_t value,
                        int32_t second = 0, int32_t third = 0, int32_t fourth = 0) {
  if (simt::atomic_compare_exchange(&check.fault->check, -1, check.id) != -1) return;
  check.fault->position = static_cast<int32_t>(position);
  check.fault->value = value;
  check.fault->more[0] = second;
  check.fault->more[1] = third;
  check.fault->more[2] = fourth;
}

// Whether an index may be used. One that may not is noted, and the kernel goes on without it.
SIMT_DEVICE bool check_index(const IndexCheck& check, int64_t position, int32_t value) {
  if (value >= check.low && value < check.high) return true;
  report(check, position, value);
  return false;
}

}  // namespace simper::cuda
