#pragma once
#include <string>

#include "cuda/cublaslt_api.h"

namespace simper::cuda::lt {

// cuBLASLt, opened at run time: half a gigabyte that an installation without a GPU does not need.
struct Library {
#define MEMBER(ours, theirs, result, parameters) result(*ours) parameters = nullptr;
  SIMPER_CUBLASLT_FUNCTIONS(MEMBER)
#undef MEMBER
  std::string path;  // as the loader knows it
  std::string
      missing;  // empty where it can be used; else what is wrong and where it was looked for
};

// Looked for once per process, in this order: the file that SIMPER_CUBLASLT names, the loader's own
// places (LD_LIBRARY_PATH, ldconfig), CUDA_PATH, CUDA_HOME, /usr/local/cuda, and the wheels
// nvidia-cublas of a Python environment.
const Library& library();

}  // namespace simper::cuda::lt
