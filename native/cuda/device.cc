// The CUDA device: arenas in the GPU's memory, streams that launch from a worker thread.
#include <cuda_profiler_api.h>

#include "core/error.h"
#include "core/worker_stream.h"
#include "cuda/availability.h"
#include "cuda/device_context.h"
#include "cuda/ranges.h"
#include "cuda/runtime.h"
#include "ops/ops.h"

namespace simper {
namespace cuda {
namespace {

// Makes a GPU that of the calling thread: what it allocates, creates and launches goes there.
void use_gpu(int gpu) {
  check(cudaSetDevice(gpu), "cannot use the GPU");
}

DeviceMemory device_memory() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cannot ask for the free memory of the cuda device");
  return {static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

class CudaStorage final : public Storage {
 public:
  CudaStorage(int gpu, int64_t bytes) {
    bytes_ = bytes;
    if (bytes == 0) return;
    use_gpu(gpu);
    if (cudaMalloc(&data_, static_cast<size_t>(bytes)) != cudaSuccess) {
      release(cudaGetLastError());
      data_ = nullptr;
      const DeviceMemory memory = device_memory();
      throw MemoryError("cannot allocate " + std::to_string(bytes) +
                        " bytes on the cuda device: " + std::to_string(memory.free) + " of " +
                        std::to_string(memory.total) + " are free");
    }
    // Streams do not wait for the default stream, so it is waited for here.
    check(cudaMemsetAsync(data_, 0, static_cast<size_t>(bytes), nullptr), "cannot clear an arena");
    check(cudaStreamSynchronize(nullptr), "cannot clear an arena");
  }
  // Waits for what the device still does: kernels that were launched may use the memory.
  ~CudaStorage() override { release(cudaFree(data_)); }
};

// The host waits until the recording stream's worker has put the event into its queue, which it
// does soon; the device then waits for the event itself.
class CudaEvent final : public Event {
 public:
  explicit CudaEvent(int gpu) {
    use_gpu(gpu);
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cannot create an event");
  }
  ~CudaEvent() override { release(cudaEventDestroy(event_)); }
  bool passed() override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check(status, "the device failed");
    return true;
  }

 protected:
  void mark(Context& context) override {
    check(cudaEventRecord(event_, static_cast<cudaStream_t>(context.native_stream())),
          "cannot record an event");
  }
  void follow(Context& context) override {
    if (void* stream = context.native_stream()) {
      check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), event_, 0),
            "cannot wait for an event");
    } else {  // a stream of the machine's own memory
      check(cudaEventSynchronize(event_), "cannot wait for an event");
    }
  }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaHooks final : public StreamHooks {
 public:
  explicit CudaHooks(std::unique_ptr<DeviceContext> context) : context_(std::move(context)) {}
  std::unique_ptr<Context> make_context() override {
    use_gpu(context_->gpu);
    return std::move(context_);
  }
  void settle(Context& context) override { static_cast<DeviceContext&>(context).settle(); }

 private:
  std::unique_ptr<DeviceContext> context_;
};

// A launch does not wait for the device, so the queue's own times would be those of launches: the
// times come from events on the device instead, and only while they are asked for.
class CudaStream final : public Stream {
 public:
  CudaStream(int gpu, bool synchronous)
      : timer_(std::make_shared<OpTimer>()),
        queue_(std::make_unique<CudaHooks>(std::make_unique<DeviceContext>(gpu, timer_)),
               synchronous) {}

  bool stuck() const override { return queue_.stuck(); }
  void enqueue(const char* op, Command command) override { queue_.enqueue(op, std::move(command)); }
  void finish(std::function<void(std::exception_ptr)> done) override {
    queue_.finish(std::move(done));
  }
  void record(std::shared_ptr<Event> event) override { queue_.record(std::move(event)); }
  std::vector<OpTime> take_profile() override { return timer_->take(); }
  void set_profiling(bool wanted) override {
    timer_->want(wanted);
    // What nsys --capture-range=cudaProfilerApi and ncu --profile-from-start off wait for.
    check(wanted ? cudaProfilerStart() : cudaProfilerStop(), "cannot switch the profiler");
  }
  void push_range(std::string name) override {
    queue_.enqueue(kRangeCommand,
                   Command([name = std::move(name)](Context&) { cuda::push_range(name.c_str()); }));
  }
  void pop_range() override {
    queue_.enqueue(kRangeCommand, Command([](Context&) { cuda::pop_range(); }));
  }

 private:
  std::shared_ptr<OpTimer> timer_;
  WorkerStream queue_;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int gpu) : gpu_(gpu) {}
  const char* name() const override { return "cuda"; }
  const OpTable& ops() const override {
    static const OpTable table = {
#define OP(name, ...) cuda::name,
#include "ops/ops.def"
#undef OP
    };
    return table;
  }
  DeviceMemory memory() const override {
    use_gpu(gpu_);
    return device_memory();
  }
  std::shared_ptr<Storage> allocate(int64_t bytes) override {
    return std::make_shared<CudaStorage>(gpu_, bytes);
  }
  std::unique_ptr<Stream> open_stream(bool synchronous) override {
    use_gpu(gpu_);
    return std::make_unique<CudaStream>(gpu_, synchronous);
  }
  std::shared_ptr<Event> make_event() override {
    return std::make_shared<CudaEvent>(gpu_);
  }
  void use() override {
    use_gpu(gpu_);
  }
  bool in_host_memory() const override {
    return false;
  }

 private:
  const int gpu_;
};

}  // namespace
}  // namespace cuda

CudaInfo cuda_info() {
  const cuda::Availability found = cuda::availability(0);
  return {found.missing.empty(), found.missing.empty() ? found.summary : found.missing};
}

int cuda_device_count() {
  if (!cuda::availability(0).missing.empty()) return 0;
  int count = 0;
  cuda::check(cudaGetDeviceCount(&count), "cannot count the GPUs");
  return count;
}

std::shared_ptr<Device> open_cuda_device(int index) {
  const cuda::Availability found = cuda::availability(index);
  if (!found.missing.empty()) throw DeviceError("no CUDA device: " + found.missing);
  cuda::use_gpu(index);
  return std::make_shared<cuda::CudaDevice>(index);
}

}  // namespace simper
