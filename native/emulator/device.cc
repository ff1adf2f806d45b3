// The emulated device: the kernels of the CUDA device, run by fibers on the machine's processor.
// Its memory and its matrix products are the CPU device's.
#include "core/device.h"

#include "core/error.h"
#include "core/worker_stream.h"
#include "cuda/fault_text.h"
#include "emulator/emulated_context.h"
#include "emulator/runtime.h"
#include "ops/ops.h"

namespace simper {
namespace emulator {
namespace {

class EmulatedHooks final : public StreamHooks {
 public:
  // The environment is read where the stream is opened, so that a test may change it in between.
  explicit EmulatedHooks(int threads)
      : threads_(threads), settings_(simt::settings_from_environment()) {}

  std::unique_ptr<Context> make_context() override {
    cpu::use_threads(threads_);
    simt::configure(settings_);
    return std::make_unique<EmulatedContext>();
  }

  void settle(Context& context) override {
    auto& state = static_cast<EmulatedContext&>(context);
    const cuda::Fault found = *state.fault;
    state.fault->check = -1;
    std::string text;
    if (found.check >= 0) text = cuda::fault_text(state.checks[found.check], found);
    state.checks.clear();
    if (found.check >= 0) throw ContractError(text);
  }

 private:
  const int threads_;
  const simt::Settings settings_;
};

class EmulatedDevice final : public Device {
 public:
  explicit EmulatedDevice(int threads) : threads_(threads), cpu_(open_cpu_device(threads)) {}
  const char* name() const override { return "emulated"; }
  const OpTable& ops() const override {
    static const OpTable table = {
#define OP(name, ...) cuda::name,
#include "ops/ops.def"
#undef OP
    };
    return table;
  }
  std::shared_ptr<Storage> allocate(int64_t bytes) override {
    return cpu_->allocate(bytes);
  }
  std::unique_ptr<Stream> open_stream(bool synchronous) override {
    return std::make_unique<WorkerStream>(std::make_unique<EmulatedHooks>(threads_), synchronous);
  }
  void limit_threads(int threads) override {
    threads_ = threads;
  }

 private:
  int threads_;
  const std::shared_ptr<Device> cpu_;
};

}  // namespace
}  // namespace emulator

std::shared_ptr<Device> open_emulated_device(int threads) {
  return std::make_shared<emulator::EmulatedDevice>(threads);
}

}  // namespace simper
