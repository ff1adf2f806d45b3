#pragma once
#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <vector>

#include "core/stream.h"
#include "cuda/context.h"
#include "cuda/matmul_engine.h"
#include "cuda/staging.h"

namespace simper::cuda {

// Times of ops by pairs of events, taken while `wanted`. The worker records, any thread asks.
class OpTimer {
 public:
  ~OpTimer();
  void want(bool wanted);
  void begin(const char* op, cudaStream_t stream);
  void end(cudaStream_t stream);
  // Sums by op of what has run since it was last asked; what still runs comes next time.
  std::vector<OpTime> take();

 private:
  struct Span {
    const char* op;
    cudaEvent_t start, stop;
  };
  cudaEvent_t event();

  std::mutex mutex_;
  bool wanted_ = false, open_ = false;
  Span current_{};
  std::vector<Span> spans_;
  std::vector<cudaEvent_t> free_;
};

// Name of a command that opens or closes a range of the caller's and is no op itself.
inline constexpr char kRangeCommand[] = "range";

// What a stream of the CUDA device has besides what kernels are told of it.
class DeviceContext final : public CudaContext {
 public:
  DeviceContext(int gpu, std::shared_ptr<OpTimer> timer);
  ~DeviceContext() override;

  void begin(const char* op) override;
  void end() override;
  void upload(void* to, const void* from, int64_t bytes) override;
  void download(void* to, const void* from, int64_t bytes) override;
  void copy(void* to, const void* from, int64_t bytes) override;
  void* native_stream() override { return stream; }

  // Waits for everything launched, fills the targets of downloads and throws ContractError where a
  // kernel met a wrong index, DeviceError where the device failed.
  void settle();

  const int gpu;
  MatmulEngine matmul;

 private:
  Staging staging_;
  Fault* found_ = nullptr;  // page-locked
  std::shared_ptr<OpTimer> timer_;
  const char* last_op_ = "none";
  bool in_range_ = false;
};

}  // namespace simper::cuda
