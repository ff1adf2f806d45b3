#pragma once
#include <string>

namespace simper::cuda {

// Visible GPU `index` and what serves it, or why CUDA cannot be used. Asked anew at each call: it
// opens the driver, makes no context on the GPU and takes none of its memory.
struct Availability {
  std::string missing;  // empty where CUDA can be used
  std::string
      summary;  // "NVIDIA H100, 79.2 GiB, sm_90; driver for CUDA 13.0; cuBLASLt 13.1 at ..."
};
Availability availability(int index);

}  // namespace simper::cuda
