#include <omp.h>
#include <sched.h>
#include <sys/mman.h>

#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "core/worker_stream.h"
#include "cpu/context.h"
#include "ops/ops.h"

namespace simper {
namespace cpu {
namespace {

// Anonymous pages: zero-filled by the kernel, given back to it when freed, huge where the kernel
// can.
class HostStorage final : public Storage {
 public:
  explicit HostStorage(int64_t bytes) {
    bytes_ = bytes;
    const std::size_t length = static_cast<std::size_t>(std::max<int64_t>(bytes, 1));
    data_ = mmap(nullptr, length, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) {
      throw MemoryError("cannot reserve " + std::to_string(bytes) +
                        " bytes of memory on the cpu device");
    }
    constexpr int64_t kWorthHugePages = int64_t{32} << 20;
    if (bytes >= kWorthHugePages) madvise(data_, length, MADV_HUGEPAGE);
  }
  ~HostStorage() override { munmap(data_, static_cast<std::size_t>(std::max<int64_t>(bytes_, 1))); }
};

// Cores this process may run on: its affinity mask, cut to the CPU quota of its container.
int available_threads() {
  if (const char* wanted = std::getenv("OMP_NUM_THREADS"); wanted && std::atoi(wanted) > 0) {
    return std::atoi(wanted);
  }
  cpu_set_t set;
  int threads = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::ifstream quota_file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (quota_file >> quota >> period && quota != "max" && period > 0) {
    threads =
        std::min(threads, std::max(1, static_cast<int>(std::atof(quota.c_str()) / period + 0.5)));
  }
  return std::max(1, threads);
}

class CpuHooks final : public StreamHooks {
 public:
  explicit CpuHooks(int threads) : threads_(threads) {}
  std::unique_ptr<Context> make_context() override {
    use_threads(threads_);
    return std::make_unique<CpuContext>();
  }

 private:
  const int threads_;
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int threads) : threads_(threads > 0 ? threads : available_threads()) {}
  const char* name() const override { return "cpu"; }
  const OpTable& ops() const override {
    static const OpTable table = {
#define OP(name, ...) cpu::name,
#include "ops/ops.def"
#undef OP
    };
    return table;
  }
  std::shared_ptr<Storage> allocate(int64_t bytes) override {
    return std::make_shared<HostStorage>(bytes);
  }
  std::unique_ptr<Stream> open_stream(bool synchronous) override {
    return std::make_unique<WorkerStream>(std::make_unique<CpuHooks>(threads_), synchronous);
  }
  void limit_threads(int threads) override {
    threads_ = threads;
  }

 private:
  int threads_;
};

}  // namespace

void use_threads(int threads) {
  omp_set_num_threads(threads > 0 ? threads : available_threads());
}

}  // namespace cpu

std::shared_ptr<Device> open_cpu_device(int threads) {
  return std::make_shared<cpu::CpuDevice>(threads);
}

CpuInfo cpu_info() {
  const cpu::MatmulProbe& probe = cpu::probe_matmul();
  return {probe.isa, probe.kernel, probe.version, cpu::available_threads(), probe.bf16};
}

}  // namespace simper
