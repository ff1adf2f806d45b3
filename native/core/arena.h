#pragma once
#include <memory>
#include <string>

#include "core/device.h"

namespace simper {

// One block of device memory, handed out front to back and freed as a whole.
class Arena {
 public:
  static constexpr int64_t kAlignment = 64;  // a cache line, and the widest vector

  Arena(Device& device, int64_t bytes, std::string name);

  // A dense tensor of zeros. Throws MemoryError when the arena is full.
  Tensor allocate(DType dtype, int32_t rank, const int64_t* shape);

  const std::shared_ptr<Storage>& storage() const { return storage_; }
  int64_t bytes() const { return storage_->bytes(); }
  int64_t used() const { return used_; }

 private:
  std::shared_ptr<Storage> storage_;
  std::string name_;
  int64_t used_ = 0;
};

}  // namespace simper
