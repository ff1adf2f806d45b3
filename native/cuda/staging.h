#pragma once
// Host memory to device memory and back, through page-locked memory and on a stream of its own: the
// copy engines work while the host fills or empties the other half of the staging memory. Copies
// keep their place among the ops: an event makes them wait for what was launched before, another
// makes what comes later wait for them.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

namespace simper::cuda {

class Staging {
 public:
  explicit Staging(cudaStream_t compute);  // throws MemoryError, DeviceError
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // `from` may be reused on return. Waits only where both halves are still on their way.
  void upload(void* to, const void* from, int64_t bytes);
  // `to` is filled by `arrive`. Up to kResults bytes between two calls of it cost no wait; more is
  // copied at once, half by half.
  void download(void* to, const void* from, int64_t bytes);
  // Fills the targets of downloads; the compute stream has been waited for.
  void arrive();

 private:
  static constexpr int64_t kHalf = int64_t{4} << 20;
  static constexpr int64_t kResults = int64_t{1} << 20;

  struct Result {
    void* to;
    const void* staged;
    int64_t bytes;
  };

  void begin();
  void end();
  void next_half();

  cudaStream_t compute_, copy_ = nullptr;
  cudaEvent_t before_ = nullptr, after_ = nullptr, done_[2] = {};
  char* halves_[2] = {};
  int current_ = 0;
  int64_t used_ = 0;  // of the current half
  char* results_ = nullptr;
  int64_t results_used_ = 0;
  std::vector<Result> pending_;
};

}  // namespace simper::cuda
