#include "cuda/device_context.h"

#include <algorithm>

#include "cuda/fault_text.h"
#include "cuda/ranges.h"
#include "cuda/runtime.h"

namespace simper::cuda {

OpTimer::~OpTimer() {
  for (const Span& span : spans_) free_.insert(free_.end(), {span.start, span.stop});
  for (cudaEvent_t event : free_) release(cudaEventDestroy(event));
}

void OpTimer::want(bool wanted) {
  std::lock_guard lock(mutex_);
  wanted_ = wanted;
}

void OpTimer::begin(const char* op, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  open_ = wanted_;
  if (!open_) return;
  current_ = {op, event(), event()};
  check(cudaEventRecord(current_.start, stream), "cannot record an event");
}

void OpTimer::end(cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  if (!open_) return;
  open_ = false;
  check(cudaEventRecord(current_.stop, stream), "cannot record an event");
  spans_.push_back(current_);
}

std::vector<OpTime> OpTimer::take() {
  std::lock_guard lock(mutex_);
  std::vector<OpTime> times;
  size_t done = 0;
  for (; done < spans_.size(); ++done) {
    const Span& span = spans_[done];
    float milliseconds = 0;
    if (cudaEventElapsedTime(&milliseconds, span.start, span.stop) != cudaSuccess) break;
    free_.insert(free_.end(), {span.start, span.stop});
    const auto known = std::find_if(times.begin(), times.end(),
                                    [&](const OpTime& time) { return time.op == span.op; });
    OpTime& time = known != times.end() ? *known : times.emplace_back(OpTime{span.op, 0, 0});
    ++time.calls;
    time.seconds += milliseconds / 1e3;
  }
  spans_.erase(spans_.begin(), spans_.begin() + static_cast<std::ptrdiff_t>(done));
  return times;
}

cudaEvent_t OpTimer::event() {
  if (free_.empty()) {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "cannot create an event");
    return event;
  }
  const cudaEvent_t event = free_.back();
  free_.pop_back();
  return event;
}

DeviceContext::DeviceContext(int gpu, std::shared_ptr<OpTimer> timer)
    : gpu(gpu), staging_(stream), timer_(std::move(timer)) {
  check(cudaMallocHost(reinterpret_cast<void**>(&found_), sizeof(Fault)),
        "cannot allocate page-locked memory");
}

DeviceContext::~DeviceContext() {
  release(cudaStreamSynchronize(stream));
  release(cudaFreeHost(found_));
}

void DeviceContext::begin(const char* op) {
  if (in_range_) pop_range();  // the op before threw
  in_range_ = op != kRangeCommand;
  if (!in_range_) return;
  last_op_ = op;
  push_range(op);
  timer_->begin(op, stream);
}

void DeviceContext::end() {
  if (!in_range_) return;
  timer_->end(stream);
  pop_range();
  in_range_ = false;
}

void DeviceContext::upload(void* to, const void* from, int64_t bytes) {
  staging_.upload(to, from, bytes);
}

void DeviceContext::download(void* to, const void* from, int64_t bytes) {
  staging_.download(to, from, bytes);
}

void DeviceContext::copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream),
        "cannot copy on the device");
}

void DeviceContext::settle() {
  check(cudaMemcpyAsync(found_, fault, sizeof(Fault), cudaMemcpyDeviceToHost, stream),
        "cannot copy from the device");
  const std::string failed = std::string("the device failed, the last op was ") + last_op_;
  check(cudaStreamSynchronize(stream), failed.c_str());
  staging_.arrive();
  const Fault found = *found_;
  std::string wrong;
  if (found.check >= 0) wrong = fault_text(checks.at(static_cast<size_t>(found.check)), found);
  checks.clear();
  if (wrong.empty()) return;
  check(cudaMemsetAsync(fault, 0xff, sizeof(Fault), stream), "cannot clear");
  throw ContractError(wrong);
}

}  // namespace simper::cuda
