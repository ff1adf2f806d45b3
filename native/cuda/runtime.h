#pragma once
#include <cuda_runtime_api.h>

#include <string>

#include "core/error.h"

namespace simper::cuda {

// Throws DeviceError with what failed and the runtime's words for why.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status) + " (" +
                    cudaGetErrorName(status) + ")");
}

// What is given back in a destructor, where nobody is left to hear of an error.
inline void release(cudaError_t) {}

}  // namespace simper::cuda
