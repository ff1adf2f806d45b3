// The driver is asked first and by name: the CUDA runtime gives one and the same error for a driver
// that is absent and for one that is too old.
#include "cuda/availability.h"

#include <dlfcn.h>

#include <cstdio>

#include "cuda/cublaslt.h"
#include "cuda/runtime.h"

namespace simper::cuda {
namespace {

constexpr const char* kDriver = "libcuda.so.1";
constexpr int kOldestArchitecture =
    80;  // the kernels use bf16 tensor cores and asynchronous copies

std::string version_text(int version) {  // 13000: CUDA 13.0
  return "CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The version of the driver's CUDA, or what is wrong with the driver.
std::string ask_driver(int& version) {
  void* handle = dlopen(kDriver, RTLD_NOW | RTLD_LOCAL);
  if (!handle) return std::string("no NVIDIA driver (") + kDriver + " not found)";
  // Never closed: the runtime opens the same library, and it does not like to be unloaded.
  const auto get_version = reinterpret_cast<int (*)(int*)>(dlsym(handle, "cuDriverGetVersion"));
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(handle, "cuInit"));
  if (!get_version || !init || get_version(&version) != 0) {
    return std::string(kDriver) + " is no NVIDIA driver that answers";
  }
  // A driver serves every runtime of its major version [CUDA compatibility guide].
  if (version / 1000 < CUDART_VERSION / 1000) {
    return "the NVIDIA driver is too old: it serves " + version_text(version) +
           ", this build needs " + version_text(CUDART_VERSION / 1000 * 1000);
  }
  constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE
  const int status = init(0);
  if (status == kNoDevice) {
    return "no NVIDIA GPU that the driver can see (CUDA_VISIBLE_DEVICES may hide it)";
  }
  if (status != 0) return "the NVIDIA driver does not start: error " + std::to_string(status);
  return "";
}

}  // namespace

Availability availability(int index) {
  const lt::Library& cublaslt = lt::library();
  int driver = 0;
  if (std::string missing = ask_driver(driver); !missing.empty()) {
    // All that is missing at once, so that it is not found out one by one.
    if (!cublaslt.missing.empty()) missing += "; " + cublaslt.missing;
    return {std::move(missing), ""};
  }
  const auto runtime_error = [](const char* what, cudaError_t status) {
    release(cudaGetLastError());
    return Availability{std::string(what) + ": " + cudaGetErrorString(status), ""};
  };
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    return runtime_error("the CUDA runtime does not start", status);
  }
  if (index >= count) {
    return {"GPU " + std::to_string(index) + " was asked for, and " + std::to_string(count) +
                (count == 1 ? " is" : " are") +
                " visible, counted from 0 (CUDA_VISIBLE_DEVICES may hide some)",
            ""};
  }
  cudaDeviceProp properties;
  if (const cudaError_t status = cudaGetDeviceProperties(&properties, index);
      status != cudaSuccess) {
    return runtime_error("the GPU does not answer", status);
  }
  const int architecture = 10 * properties.major + properties.minor;
  const std::string name = std::string(properties.name) + ", sm_" + std::to_string(architecture);
  if (architecture < kOldestArchitecture) {
    return {"the GPU is too old: " + name + ", expected sm_" + std::to_string(kOldestArchitecture) +
                " (A100) or newer",
            ""};
  }
  if (!cublaslt.missing.empty()) return {cublaslt.missing, ""};
  char memory[32];
  std::snprintf(memory, sizeof memory, "%.1f GiB",
                static_cast<double>(properties.totalGlobalMem) / (1 << 30));
  const size_t version = cublaslt.version();
  return {"", name + ", " + memory + "; driver for " + version_text(driver) + "; cuBLASLt " +
                  std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
                  " (" + cublaslt.path + ")"};
}

}  // namespace simper::cuda
