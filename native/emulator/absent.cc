// In place of the emulated device, in every build that is not for testing kernels.
#include "core/device.h"
#include "core/error.h"

namespace simper {

std::shared_ptr<Device> open_emulated_device(int) {
  throw DeviceError(
      "the emulated device is not part of this build: npm run test:emulator builds it, "
      "SIMPER_NATIVE_BINDING=build/emulated/Release/simper_native.node loads it");
}

}  // namespace simper
