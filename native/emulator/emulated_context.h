#pragma once
#include "cpu/context.h"
#include "cuda/context.h"

namespace simper::emulator {

// What the ops of the emulated device get.
struct EmulatedContext final : cuda::CudaContext {
  cpu::CpuContext cpu;  // of the matrix products
};

}  // namespace simper::emulator
