#include "cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "cuda/runtime.h"

namespace simper::cuda {
namespace {

constexpr int64_t aligned(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

}  // namespace

Staging::Staging(cudaStream_t compute) : compute_(compute) {
  check(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking), "cannot create a copy stream");
  for (cudaEvent_t* event : {&before_, &after_, &done_[0], &done_[1]}) {
    check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cannot create an event");
  }
  constexpr int64_t kAll = 2 * kHalf + kResults;
  void* memory = nullptr;
  if (cudaMallocHost(&memory, kAll) != cudaSuccess) {
    release(cudaGetLastError());
    throw MemoryError("cannot reserve " + std::to_string(kAll) +
                      " bytes of page-locked host memory for copies to the cuda device");
  }
  halves_[0] = static_cast<char*>(memory);
  halves_[1] = halves_[0] + kHalf;
  results_ = halves_[1] + kHalf;
}

Staging::~Staging() {
  if (copy_) release(cudaStreamSynchronize(copy_));
  if (halves_[0]) release(cudaFreeHost(halves_[0]));
  for (cudaEvent_t event : {before_, after_, done_[0], done_[1]}) {
    if (event) release(cudaEventDestroy(event));
  }
  if (copy_) release(cudaStreamDestroy(copy_));
}

void Staging::upload(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  begin();
  for (int64_t moved = 0; moved < bytes;) {
    if (used_ == kHalf) next_half();
    const int64_t count = std::min(bytes - moved, kHalf - used_);
    char* staged = halves_[current_] + used_;
    std::memcpy(staged, static_cast<const char*>(from) + moved, static_cast<size_t>(count));
    check(cudaMemcpyAsync(static_cast<char*>(to) + moved, staged, static_cast<size_t>(count),
                          cudaMemcpyHostToDevice, copy_),
          "cannot copy to the device");
    used_ = std::min(kHalf, used_ + aligned(count));
    moved += count;
  }
  end();
}

void Staging::download(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  begin();
  if (aligned(bytes) <= kResults - results_used_) {
    char* staged = results_ + results_used_;
    check(cudaMemcpyAsync(staged, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, copy_),
          "cannot copy from the device");
    pending_.push_back({to, staged, bytes});
    results_used_ += aligned(bytes);
    return end();
  }
  // One half is copied out while the device fills the other. Uploads that still read a half are
  // earlier on the same stream.
  int64_t staged_bytes[2] = {};
  const auto empty = [&](int half, int64_t position) {
    check(cudaEventSynchronize(done_[half]), "cannot copy from the device");
    std::memcpy(static_cast<char*>(to) + position, halves_[half],
                static_cast<size_t>(staged_bytes[half]));
  };
  int64_t emptied = 0;
  int half = 0;
  for (int64_t moved = 0; moved < bytes; half ^= 1) {
    const int64_t count = std::min(bytes - moved, kHalf);
    check(cudaMemcpyAsync(halves_[half], static_cast<const char*>(from) + moved,
                          static_cast<size_t>(count), cudaMemcpyDeviceToHost, copy_),
          "cannot copy from the device");
    check(cudaEventRecord(done_[half], copy_), "cannot record an event");
    staged_bytes[half] = count;
    if (moved > 0) {
      empty(half ^ 1, emptied);
      emptied += staged_bytes[half ^ 1];
    }
    moved += count;
  }
  empty(half ^ 1, emptied);
  current_ = 0;
  used_ = 0;
  end();
}

void Staging::arrive() {
  for (const Result& result : pending_) {
    std::memcpy(result.to, result.staged, static_cast<size_t>(result.bytes));
  }
  pending_.clear();
  results_used_ = 0;
}

void Staging::begin() {
  check(cudaEventRecord(before_, compute_), "cannot record an event");
  check(cudaStreamWaitEvent(copy_, before_, 0), "cannot order a copy");
}

void Staging::end() {
  check(cudaEventRecord(after_, copy_), "cannot record an event");
  check(cudaStreamWaitEvent(compute_, after_, 0), "cannot order a copy");
}

void Staging::next_half() {
  check(cudaEventRecord(done_[current_], copy_), "cannot record an event");
  current_ ^= 1;
  check(cudaEventSynchronize(done_[current_]), "cannot copy to the device");
  used_ = 0;
}

}  // namespace simper::cuda
