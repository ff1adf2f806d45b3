#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace simper {

struct OpTable;

// Memory of an arena. Freed when the last holder lets go: queued work keeps what it uses alive.
class Storage {
 public:
  virtual ~Storage() = default;
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 protected:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// What has to hold when a stream is waited for. Whoever waits for the stream's events has to look
// at the same, for on a device of its own memory an event says only that the device got there.
class SettleChecks {
 public:
  void add(std::function<void()> check) {
    std::lock_guard lock(mutex_);
    checks_.push_back(std::move(check));
  }
  bool empty() {
    std::lock_guard lock(mutex_);
    return checks_.empty();
  }
  // Throws what the first one that does not hold throws.
  void run() {
    std::lock_guard lock(mutex_);
    for (const auto& check : checks_) check();
  }

 private:
  std::mutex mutex_;
  std::vector<std::function<void()>> checks_;
};

// What an op may use besides its arguments: threads, scratch and caches of the stream it runs on.
// Each device derives its own; ops get it as their first parameter.
class Context {
 public:
  virtual ~Context() = default;
  // Called by a stream around each of its ops, for devices that name and time them on their own.
  virtual void begin(const char* /*op*/) {}
  virtual void end() {}
  // Host memory to device memory in the order of the stream; `from` may be reused on return.
  virtual void upload(void* to, const void* from, int64_t bytes) { copy_host(to, from, bytes); }
  // And back: `to` is filled once a `finish` that is enqueued later is done.
  virtual void download(void* to, const void* from, int64_t bytes) { copy_host(to, from, bytes); }
  // Device memory to device memory; the two do not overlap.
  virtual void copy(void* to, const void* from, int64_t bytes) { copy_host(to, from, bytes); }
  // The device's own queue behind this context (cudaStream_t), or null where work is done at once.
  virtual void* native_stream() { return nullptr; }

  const std::shared_ptr<SettleChecks>& settle_checks() const { return settle_checks_; }
  // Those of a stream whose event this one has waited for.
  void adopt(const std::shared_ptr<SettleChecks>& checks) {
    if (!checks || checks == settle_checks_ || checks->empty()) return;
    for (const auto& known : adopted_) {
      if (known == checks) return;
    }
    adopted_.push_back(checks);
  }
  void run_settle_checks() {
    settle_checks_->run();
    for (const auto& checks : adopted_) checks->run();
  }

  // Whether the stream is being closed, so that what waits for others gives up.
  bool stopping() const { return stop_ && stop_->load(std::memory_order_relaxed); }
  void stop_with(const std::atomic<bool>& stop, std::atomic<bool>& stuck) {
    stop_ = &stop;
    stuck_ = &stuck;
  }
  // Around a call into a library that may wait for others for ever and hears of no closing.
  void set_stuck(bool stuck) {
    if (stuck_) stuck_->store(stuck, std::memory_order_relaxed);
  }

 private:
  // memcpy, for which nothing at all may also be nowhere.
  static void copy_host(void* to, const void* from, int64_t bytes) {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  const std::atomic<bool>* stop_ = nullptr;
  std::atomic<bool>* stuck_ = nullptr;
  const std::shared_ptr<SettleChecks> settle_checks_ = std::make_shared<SettleChecks>();
  std::vector<std::shared_ptr<SettleChecks>> adopted_;
};

class Event;
class Stream;

// Bytes of a device's own memory. All zero: it computes in the machine's.
struct DeviceMemory {
  int64_t free = 0, total = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* name() const = 0;
  virtual const OpTable& ops() const = 0;
  virtual DeviceMemory memory() const { return {}; }
  // Zero-filled memory, aligned to at least 64 bytes. Throws MemoryError.
  virtual std::shared_ptr<Storage> allocate(int64_t bytes) = 0;
  // `synchronous`: each op runs before its call returns, which throws what the op threw.
  virtual std::unique_ptr<Stream> open_stream(bool synchronous) = 0;
  // For streams that are opened from now on, where the machine's cores compute.
  virtual void limit_threads(int /*threads*/) {}
  // A point in the work of one of its streams.
  virtual std::shared_ptr<Event> make_event();
  // Makes it the one that the calling thread works with, where devices are many.
  virtual void use() {}
  // Whether its memory is the machine's, for whoever moves bytes without the device's help.
  virtual bool in_host_memory() const { return true; }
};

// The CPU device with `threads` compute threads per stream; 0 takes one per core this process may
// use.
std::shared_ptr<Device> open_cpu_device(int threads);

// What `simper-native env` prints about the CPU.
struct CpuInfo {
  std::string isa;          // the best instruction set oneDNN will use
  std::string matmul_bf16;  // name of the oneDNN kernel chosen for bf16 GEMMs, or "f32 fallback"
  std::string onednn;       // version
  int threads;
  bool bf16;  // bf16 GEMMs run in hardware
};
CpuInfo cpu_info();

// Whether CUDA can be used here, and what `simper-native env` prints about it: the GPU and the
// versions of driver and libraries, or what is missing. Where there is no nvcc this is
// cuda/absent.cc.
struct CudaInfo {
  bool available;
  std::string detail;
};
CudaInfo cuda_info();
// GPUs that this process sees; 0 where CUDA cannot be used.
int cuda_device_count();
// Visible GPU `index`. Throws DeviceError with the detail above where CUDA cannot be used, or there
// is no such GPU.
std::shared_ptr<Device> open_cuda_device(int index);

// The kernels of the CUDA device on the CPU, in builds with SIMPER_EMULATOR; elsewhere
// emulator/absent.cc throws DeviceError. `threads` are those of its matrix products.
std::shared_ptr<Device> open_emulated_device(int threads = 0);

}  // namespace simper
