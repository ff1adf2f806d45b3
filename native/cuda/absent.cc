// The CUDA device of a build without CUDA: it says so, and whether the machine would have a driver.
#include <dlfcn.h>

#include "core/device.h"
#include "core/error.h"

namespace simper {

CudaInfo cuda_info() {
  std::string detail =
      "not part of this build; build it with: npx simper-native build --cuda (needs nvcc)";
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (!driver) detail += "; no NVIDIA driver (libcuda.so.1 not found) on this machine";
  if (driver) dlclose(driver);
  return {false, detail};
}

int cuda_device_count() {
  return 0;
}

std::shared_ptr<Device> open_cuda_device(int) {
  throw DeviceError("no CUDA device: " + cuda_info().detail);
}

}  // namespace simper
