// Ops of the CUDA device without a kernel yet. A kernel that is linked takes the place of its line.
#include "core/error.h"
#include "ops/ops.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

namespace simper::cuda {

#define OP(name, ...)                                              \
  __attribute__((weak)) void name(Context& context, __VA_ARGS__) { \
    throw DeviceError("this op has no kernel yet");                \
  }
#include "ops/ops.def"
#undef OP

}  // namespace simper::cuda
