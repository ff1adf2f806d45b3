// What kernels and their launches need of a stream (context.h), on a real device.
#include "cuda/context.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "cuda/runtime.h"

namespace simper::cuda {

// One block per slot. A block that is too small is replaced, which waits for the device: it happens
// until the largest step has been seen, and never again.
class ScratchPool {
 public:
  ~ScratchPool() {
    for (const Block& block : blocks_) release(cudaFree(block.data));
  }

  void* reserve(int64_t bytes, int slot) {
    if (slot >= static_cast<int>(blocks_.size())) blocks_.resize(static_cast<size_t>(slot) + 1);
    Block& block = blocks_[static_cast<size_t>(slot)];
    if (bytes <= block.bytes) return block.data;
    release(cudaFree(block.data));
    block = {};
    if (cudaMalloc(&block.data, static_cast<size_t>(bytes)) != cudaSuccess) {
      release(cudaGetLastError());
      block = {};
      size_t free = 0, total = 0;
      release(cudaMemGetInfo(&free, &total));
      throw MemoryError("cannot allocate " + std::to_string(bytes) +
                        " bytes of scratch memory on the cuda device: " + std::to_string(free) +
                        " of " + std::to_string(total) + " are free");
    }
    block.bytes = bytes;
    return block.data;
  }

 private:
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
  };
  std::vector<Block> blocks_;
};

CudaContext::CudaContext() : pool(std::make_unique<ScratchPool>()) {
  int gpu = 0;
  check(cudaGetDevice(&gpu), "cannot ask for the GPU");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, gpu),
        "cannot ask for the number of multiprocessors");
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cannot create a stream");
  check(cudaMalloc(reinterpret_cast<void**>(&fault), sizeof(Fault)), "cannot allocate");
  check(cudaMemsetAsync(fault, 0xff, sizeof(Fault), stream), "cannot clear");  // check = -1
}

CudaContext::~CudaContext() {
  if (stream) release(cudaStreamSynchronize(stream));
  release(cudaFree(fault));
  pool.reset();
  if (stream) release(cudaStreamDestroy(stream));
}

void* CudaContext::scratch_bytes(int64_t bytes, int slot) {
  return bytes == 0 ? nullptr : pool->reserve(bytes, slot);
}

IndexCheck CudaContext::check_indices(const char* op, const char* argument, const Tensor& table,
                                      int64_t low, int64_t high) {
  return add_check({op, argument, table.row_size(), low, high});
}

void allow_shared_memory(const void* kernel, size_t bytes) {
  constexpr size_t kDefault = 48 << 10;
  if (bytes <= kDefault) return;
  static std::mutex mutex;
  static std::unordered_map<const void*, size_t> allowed;
  std::lock_guard lock(mutex);
  size_t& known = allowed[kernel];
  if (bytes <= known) return;
  const std::string what =
      "cannot give a kernel " + std::to_string(bytes) + " bytes of shared memory";
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        what.c_str());
  known = bytes;
}

void check_launch() {
  check(cudaGetLastError(), "the kernel could not be launched");
}

}  // namespace simper::cuda
