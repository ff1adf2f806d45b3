// CudaContext of the emulated device: its "device" memory is the machine's.
#include "cuda/context.h"

#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace simper::cuda {

// One block per slot. What an op finds in its scratch memory is NaN, never what the last one left.
class ScratchPool {
 public:
  void* take(int64_t bytes, int slot) {
    if (static_cast<size_t>(slot) >= slots_.size()) slots_.resize(static_cast<size_t>(slot) + 1);
    Slot& found = slots_[static_cast<size_t>(slot)];
    if (bytes > found.bytes) {
      const int64_t rounded = (bytes + 255) / 256 * 256;
      found.data.reset(std::aligned_alloc(256, static_cast<size_t>(rounded)));
      found.bytes = found.data ? rounded : 0;
      if (!found.data)
        throw MemoryError("cannot allocate " + std::to_string(bytes) + " bytes of scratch memory");
    }
    if (bytes > 0) std::memset(found.data.get(), 0xff, static_cast<size_t>(bytes));
    return found.data.get();
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  struct Slot {
    std::unique_ptr<void, Free> data;
    int64_t bytes = 0;
  };
  std::vector<Slot> slots_;
};

CudaContext::CudaContext()
    : pool(std::make_unique<ScratchPool>()), fault(new Fault{-1, 0, 0, {}}) {}

CudaContext::~CudaContext() {
  delete fault;
}

void* CudaContext::scratch_bytes(int64_t bytes, int slot) {
  return pool->take(bytes, slot);
}

IndexCheck CudaContext::check_indices(const char* op, const char* argument, const Tensor& table,
                                      int64_t low, int64_t high) {
  return add_check({op, argument, table.row_size(), low, high});
}

}  // namespace simper::cuda
