#pragma once
// Named ranges on the timelines of NVIDIA's profilers: header-only NVTX, a null check per call
// while no profiler is attached. A toolkit without the header gives a build without ranges.
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define SIMPER_NVTX 1
#endif

namespace simper::cuda {

inline void push_range([[maybe_unused]] const char* name) {
#ifdef SIMPER_NVTX
  nvtxRangePushA(name);
#endif
}
inline void pop_range() {
#ifdef SIMPER_NVTX
  nvtxRangePop();
#endif
}

}  // namespace simper::cuda
