#include "core/arena.h"

#include "core/error.h"

namespace simper {

Arena::Arena(Device& device, int64_t bytes, std::string name)
    : storage_(device.allocate(bytes)), name_(std::move(name)) {}

Tensor Arena::allocate(DType dtype, int32_t rank, const int64_t* shape) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.rank = rank;
  for (int32_t i = 0; i < rank; ++i) tensor.shape[i] = shape[i];
  tensor.row_stride = tensor.row_size();
  const int64_t bytes = tensor.size() * size_of(dtype);
  const int64_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (padded > storage_->bytes() - used_) {
    throw MemoryError("arena \"" + name_ + "\" is full: a tensor of " + std::to_string(bytes) +
                      " bytes does not fit into the " + std::to_string(storage_->bytes() - used_) +
                      " left of " + std::to_string(storage_->bytes()));
  }
  tensor.data = static_cast<char*>(storage_->data()) + used_;
  used_ += padded;
  return tensor;
}

}  // namespace simper
