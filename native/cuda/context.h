#pragma once
// What the ops of the CUDA device use besides their arguments. The same struct serves the emulated
// device, whose launches run at once and whose "device" memory is the host's.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace simper::cuda {

// An index out of range that a kernel met, kept in device memory until the stream's next `finish`
// turns it into a ContractError. `check` is -1 while there is none; the first one stays.
struct Fault {
  int32_t check;     // index into CudaContext::checks
  int32_t position;  // row · columns + column in the index table
  int32_t value;
  int32_t more[3];  // what a check of a whole row says besides
};

// What a kernel needs to check an index table: pass it by value, call simt_check_index
// (cuda/check.h).
struct IndexCheck {
  Fault* fault;
  int32_t id;
  int32_t low, high;  // expected: low <= value < high
};

class ScratchPool;  // device memory of a stream that grows to its largest use and stays

struct CudaContext : Context {
  CudaContext();
  ~CudaContext() override;

  // Device memory for the op that runs now, uninitialized, aligned to 256 bytes. Slots of one op
  // are apart; the next op on the stream takes the same memory again.
  void* scratch_bytes(int64_t bytes, int slot);
  template <class T>
  T* scratch(int64_t count, int slot = 0) {
    return static_cast<T*>(scratch_bytes(count * static_cast<int64_t>(sizeof(T)), slot));
  }
  // "`op`: `argument`[i] is v, expected low <= argument < high", once a kernel has met v.
  IndexCheck check_indices(const char* op, const char* argument, const Tensor& table, int64_t low,
                           int64_t high);

  int multiprocessors = 1;
  std::unique_ptr<ScratchPool> pool;
  Fault* fault = nullptr;  // device memory
  struct Check {
    const char *op, *argument;
    int64_t columns, low, high;
    // What is said of a fault: fault_text.h has one function for each kind of check.
    std::string (*text)(const Check& check, const Fault& fault) = nullptr;
  };
  // A check that is more than a range, with a text of its own.
  IndexCheck add_check(const Check& check) {
    checks.push_back(check);
    return {fault, static_cast<int32_t>(checks.size()) - 1, static_cast<int32_t>(check.low),
            static_cast<int32_t>(check.high)};
  }
  std::vector<Check> checks;
  CUstream_st* stream = nullptr;
};

// Lets a kernel use more dynamic shared memory than the default of 48 KB. Throws DeviceError.
void allow_shared_memory(const void* kernel, size_t bytes);
// Throws DeviceError when the launch before it was refused.
void check_launch();

}  // namespace simper::cuda
