#pragma once
// The half of the emulator behind the wrappers of simt_host.h: runs a grid block by block with one
// fiber per CUDA thread, on the operating system's thread that launched it. These files are never
// compiled with -fsanitize=thread, so that what the race detector sees are the kernels' accesses.
//
//   fiber        a stack of its own, and the switch from one to another
//   scheduler    which thread of a block runs next; barriers; what each warp waits for
//   warp         what 32 lanes compute together: shuffles, ldmatrix, mma
//   shared       the block's shared memory: NaN at first, red zones between its arrays
//   copies       cp.async: what is in flight, per thread
//
// A rule that a kernel breaks (a barrier that not everybody reaches, lanes of a warp at different
// collectives, memory it was not given ...) ends the launch with a DeviceError that names kernel,
// block, thread and what every warp waits for. The launch is over then: fibers are dropped as they
// are.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cuda/simt/grid.h"

namespace simper::simt {

// Which of the threads that can run goes on when one has to wait.
enum class Policy {
  sequential,  // the first
  reverse,     // the last
  random,      // any, and a thread may be set aside at every wait
  skewed,      // the same warp for as long as it can, then any
};

struct Settings {
  Policy policy = Policy::sequential;
  uint64_t seed = 1;  // of `random` and `skewed`, and of the order of blocks
};
// What SIMPER_EMULATOR_POLICY and SIMPER_EMULATOR_SEED say. Throws DeviceError for what is neither.
Settings settings_from_environment();
// For the launches of the calling thread from now on. Until then: the environment's.
void configure(const Settings& settings);

// What the launches of a thread have done since its counters were reset.
struct Counters {
  int64_t launches = 0, blocks = 0, threads = 0;
  int64_t switches = 0;  // from one fiber to another
  int64_t barriers = 0, collectives = 0, mma = 0, load_matrix = 0;
  int64_t bank_conflicts = 0;  // extra passes of ldmatrix over shared memory
  int64_t copied_bytes = 0;    // read from global memory by cp.async
};
Counters& counters();

// Where the running thread is. Read by every wrapper, so it is found without a call.
struct Position {
  unsigned thread = 0, threads = 0;
  Grid block, blocks;
};
extern constinit thread_local Position position __attribute__((tls_model("initial-exec")));

struct Launch {
  std::string_view kernel;
  Grid grid;
  unsigned threads;
  size_t shared_bytes;
  void (*body)(void* arguments);  // calls the kernel
  void* arguments;
};
void run(const Launch& launch);

// ---- called by the threads of a kernel ----------------------------------------------------------

// Ends the launch.
[[noreturn]] void fail(std::string_view message);

void wait_at_barrier(int id, unsigned expected);

enum class Collective : uint8_t {
  none,
  sync_warp,
  shuffle,
  ballot,
  load_matrix,
  load_matrix_transposed,
  mma
};
// What a lane brings to a collective, and takes from it.
struct Exchange {
  uint32_t in[8];
  uint32_t out[4];
  int lane;            // shuffle: whose value is wanted
  const void* shared;  // ldmatrix: address of the lane's row
};
// Waits for the other 31 lanes; the last one to come does the work of all.
void meet(Collective kind, Exchange& exchange);

// `bytes` of the block's shared memory from `offset` on; `offset` moves behind them.
void* take_shared(size_t& offset, size_t bytes);
// Whether [p, p + bytes) is shared memory of the block.
bool is_shared(const void* p, size_t bytes);

// A copy of 16 bytes that is in flight.
struct Copy {
  void* shared;
  uint32_t words[4];
};
void push_copy(const Copy& copy, bool reads_global);
void commit_copies();
// The next copy that must have landed when at most `groups` may be in flight; false: none left.
bool pop_copy(int groups, Copy& copy);

}  // namespace simper::simt
