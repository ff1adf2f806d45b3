#pragma once
#include <cstdint>
#include <memory>
#include <string>

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

// What an op may use besides its arguments: threads, scratch and caches of the stream it runs on.
// Each device derives its own; ops get it as their first parameter.
class Context {
 public:
  virtual ~Context() = default;
};

class Stream;

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* name() const = 0;
  virtual const OpTable& ops() const = 0;
  // Zero-filled memory, aligned to at least 64 bytes. Throws MemoryError.
  virtual std::shared_ptr<Storage> allocate(int64_t bytes) = 0;
  // `synchronous`: each op runs before its call returns, which throws what the op threw.
  virtual std::unique_ptr<Stream> open_stream(bool synchronous) = 0;
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

}  // namespace simper
