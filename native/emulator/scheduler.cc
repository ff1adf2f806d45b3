#include "emulator/scheduler.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "emulator/warp.h"

namespace simper::simt {

constinit thread_local Position position __attribute__((tls_model("initial-exec"))) = {};

namespace {

constexpr uint32_t kFull = 0xffffffffu;

// To ThreadSanitizer two threads on one stack are a race.
#if defined(SIMPER_TSAN)
constexpr bool kReuseFibers = false;
#else
constexpr bool kReuseFibers = true;
#endif

// The lowest set bit at or after `from`, going round.
unsigned bit_from(uint32_t bits, unsigned from) {
  return (static_cast<unsigned>(std::countr_zero(std::rotr(bits, static_cast<int>(from)))) + from) %
         32;
}

const char* name_of(Collective kind) {
  constexpr const char* kNames[] = {"nothing",  "sync_warp",      "a shuffle", "a ballot",
                                    "ldmatrix", "ldmatrix.trans", "mma"};
  return kNames[static_cast<int>(kind)];
}

// "cuda::fill_kernel<float>" of "simper::cuda::{anonymous}::fill_kernel<float>".
std::string short_name(std::string_view kernel) {
  std::string name(kernel);
  for (const std::string_view part : {"simper::", "{anonymous}::"}) {
    for (size_t at; (at = name.find(part)) != std::string::npos;) name.erase(at, part.size());
  }
  return name;
}

void enter_fiber() {
  fiber_entered();
  scheduler().run_threads();
}

}  // namespace

Scheduler& scheduler() {
  // A pointer, because the addon's thread_local variables share a small block with all of Node's.
  static thread_local const auto instance = std::make_unique<Scheduler>();
  return *instance;
}

Scheduler::Scheduler()
    : settings_(settings_from_environment()),
      fibers_(enter_fiber),
      copies_(new CopyQueue[kMaxThreads]) {}

uint64_t Scheduler::random() {  // splitmix64 [Steele et al. 2014]
  uint64_t z = random_ += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// ---- a launch -----------------------------------------------------------------------------------

void Scheduler::check_launch() const {
  const auto refuse = [&](const std::string& what) {
    throw DeviceError("kernel " + short_name(launch_->kernel) + ": a launch with " + what);
  };
  const auto& [x, y, z] = launch_->grid;
  if (y > 65535 || z > 65535 || x > 0x7fffffffu)
    refuse("a grid of " + std::to_string(x) + " x " + std::to_string(y) + " x " +
           std::to_string(z) + " blocks, a device takes 2^31 - 1 x 65535 x 65535");
  if (launch_->threads == 0 || launch_->threads > kMaxThreads || launch_->threads % 32 != 0)
    refuse(std::to_string(launch_->threads) + " threads, expected whole warps, at most 1024");
  if (launch_->shared_bytes > SharedArena::kLimit)
    refuse(std::to_string(launch_->shared_bytes) + " bytes of shared memory, a block has " +
           std::to_string(SharedArena::kLimit));
}

void Scheduler::run(const Launch& launch) {
  launch_ = &launch;
  check_launch();
  adopt_thread(main_);
  random_ = settings_.seed;
  const Grid grid = launch.grid;
  const size_t blocks = static_cast<size_t>(grid.x) * grid.y * grid.z;
  order_.resize(blocks);
  std::iota(order_.begin(), order_.end(), 0u);
  if (settings_.policy == Policy::reverse) {
    std::reverse(order_.begin(), order_.end());
  } else if (settings_.policy != Policy::sequential) {
    for (size_t i = blocks; i > 1; --i) std::swap(order_[i - 1], order_[random() % i]);
  }
  ++counters_.launches;
  counters_.blocks += static_cast<int64_t>(blocks);
  counters_.threads += static_cast<int64_t>(blocks * launch.threads);
  position.threads = launch.threads;
  position.blocks = grid;
  for (const unsigned index : order_) {
    begin_block(index);
    go_to(next_thread(), false);  // comes back when the block has ended, or failed
    end_block();
    if (!error_.empty()) break;
  }
  shared_.end_launch();
  happens_after(&all_ended_);
  if (!error_.empty()) fibers_.discard();
  if (!error_.empty()) throw DeviceError(std::exchange(error_, {}));
}

void Scheduler::begin_block(unsigned index) {
  const auto& [x, y, z] = launch_->grid;
  position.block = {index % x, index / x % y, index / x / y};
  shared_.begin_block(launch_->shared_bytes);
  fibers_.reset(launch_->threads);
  const unsigned warps = launch_->threads / 32;
  for (unsigned w = 0; w < warps; ++w) {
    Warp& warp = warps_[w];
    warp.started = warp.arrived = 0;
    warp.live = warp.ready = kFull;
    warp.kind = Collective::none;
  }
  ready_warps_ = warps == 32 ? kFull : (1u << warps) - 1;
  current_warp_ = 0;
  live_ = launch_->threads;
}

void Scheduler::end_block() {
  if (error_.empty() && !shared_.intact())
    error_ = report("shared memory behind the end of an array was written", false);
  if (error_.empty()) return;
  for (Barrier& barrier : barriers_) {  // a block that ended well has left none waiting
    barrier.arrived = 0;
    std::fill(std::begin(barrier.waiting), std::end(barrier.waiting), 0u);
  }
}

// ---- who runs -----------------------------------------------------------------------------------

int Scheduler::next_thread() {
  if (ready_warps_ == 0) return -1;
  unsigned warp = 0, lane = 0;
  switch (settings_.policy) {
    case Policy::sequential:
      warp = static_cast<unsigned>(std::countr_zero(ready_warps_));
      lane = static_cast<unsigned>(std::countr_zero(warps_[warp].ready));
      break;
    case Policy::reverse:
      warp = 31u - static_cast<unsigned>(std::countl_zero(ready_warps_));
      lane = 31u - static_cast<unsigned>(std::countl_zero(warps_[warp].ready));
      break;
    case Policy::random:
    case Policy::skewed: {
      const uint64_t bits = random();
      const bool stay =
          settings_.policy == Policy::skewed && (ready_warps_ >> current_warp_ & 1u) != 0;
      warp = stay ? current_warp_ : bit_from(ready_warps_, bits % 32);
      lane = bit_from(warps_[warp].ready, bits / 32 % 32);
      break;
    }
  }
  current_warp_ = warp;
  return static_cast<int>(warp * 32 + lane);
}

// Switches to a thread; the first time, it gets a fiber.
void Scheduler::go_to(int thread, bool from_ends) {
  Fiber& from = *running_;
  Warp& warp = warps_[thread / 32];
  const uint32_t lane = 1u << thread % 32;
  if (!(warp.started & lane)) start(thread, fibers_.take());
  position.thread = static_cast<unsigned>(thread);
  running_ = fiber_[thread];
  ++counters_.switches;
  switch_fiber(from, *running_, from_ends);
}

void Scheduler::start(int thread, Fiber* fiber) {
  warps_[thread / 32].started |= 1u << thread % 32;
  fiber_[thread] = fiber;
  copies_[thread].clear();
}

void Scheduler::go_to_main() {
  Fiber& from = *running_;
  running_ = &main_;
  switch_fiber(from, main_, true);
  __builtin_unreachable();
}

void Scheduler::run_threads() {
  for (;;) {
    launch_->body(launch_->arguments);
    thread_ends();
    const int next = next_thread();
    if (next < 0) {
      if (live_ > 0) fail("the thread has ended, and nobody else can go on");
      go_to_main();
    }
    if (kReuseFibers && !(warps_[next / 32].started >> next % 32 & 1u)) {
      // Most kernels never wait: then one fiber runs the threads one after another.
      start(next, running_);
      position.thread = static_cast<unsigned>(next);
      continue;
    }
    if (kReuseFibers) fibers_.give_back(running_);
    go_to(next, true);
  }
}

void Scheduler::thread_ends() {
  const unsigned thread = position.thread;
  Warp& warp = warps_[thread / 32];
  happens_before(&all_ended_);
  if (!copies().empty()) fail("the thread ends while its cp.async are in flight");
  if (warp.arrived > 0)
    fail("the thread ends while lanes of its warp wait at " + std::string(name_of(warp.kind)));
  if (barriers_[0].arrived > 0) fail("the thread ends while others wait at barrier()");
  warp.live &= ~(1u << thread % 32);
  set_waiting(thread);
  --live_;
}

// ---- waiting ------------------------------------------------------------------------------------

void Scheduler::set_waiting(unsigned thread) {
  uint32_t& ready = warps_[thread / 32].ready;
  ready &= ~(1u << thread % 32);
  if (ready == 0) ready_warps_ &= ~(1u << thread / 32);
}

void Scheduler::set_ready(unsigned warp, uint32_t lanes) {
  warps_[warp].ready |= lanes;
  ready_warps_ |= 1u << warp;
}

void Scheduler::wait() {
  set_waiting(position.thread);
  const int next = next_thread();
  if (next < 0) fail("nobody can go on");
  go_to(next, false);
}

void Scheduler::maybe_set_aside() {
  if (settings_.policy != Policy::random) return;
  const int next = next_thread();
  if (next != static_cast<int>(position.thread)) go_to(next, false);
}

void Scheduler::barrier(int id, unsigned expected) {
  Barrier& barrier = barriers_[id];
  const unsigned thread = position.thread, threads = position.threads;
  if (id == 0 && live_ != threads) fail("barrier() after threads of the block have ended");
  if (expected == 0 || expected % 32 != 0 || expected > threads)
    fail("barrier(" + std::to_string(id) + ", " + std::to_string(expected) +
         "): expected whole warps of the block's " + std::to_string(threads) + " threads");
  if (barrier.arrived > 0 && barrier.expected != expected)
    fail("barrier(" + std::to_string(id) + ", " + std::to_string(expected) +
         ") while others wait for " + std::to_string(barrier.expected) + " threads there");
  void* order = fibers_.sync_object(static_cast<unsigned>(2 * id + barrier.turn % 2));
  happens_before(order);
  barrier.expected = expected;
  barrier.waiting[thread / 32] |= 1u << thread % 32;
  if (++barrier.arrived < expected) {
    wait();
  } else {
    for (unsigned w = 0; w < threads / 32; ++w) {
      if (barrier.waiting[w] != 0) set_ready(w, std::exchange(barrier.waiting[w], 0u));
    }
    barrier.arrived = 0;
    ++barrier.turn;
    ++counters_.barriers;
    maybe_set_aside();
  }
  happens_after(order);
}

void Scheduler::meet(Collective kind, Exchange& exchange) {
  const unsigned thread = position.thread;
  Warp& warp = warps_[thread / 32];
  if (warp.live != kFull) fail(std::string(name_of(kind)) + " after lanes of the warp have ended");
  if (warp.arrived > 0 && warp.kind != kind)
    fail("the lane is at " + std::string(name_of(kind)) + ", others of its warp at " +
         name_of(warp.kind));
  void* order = fibers_.sync_object(32 + thread / 32 * 2 + static_cast<unsigned>(warp.turn % 2));
  const bool orders = kind == Collective::sync_warp;
  if (orders) happens_before(order);
  warp.kind = kind;
  warp.lanes[thread % 32] = &exchange;
  if (++warp.arrived < 32) {
    wait();
  } else {
    perform(kind, warp.lanes, counters_);
    warp.arrived = 0;
    ++warp.turn;
    set_ready(thread / 32, kFull);
    maybe_set_aside();
  }
  if (orders) happens_after(order);
}

// ---- what went wrong ----------------------------------------------------------------------------

void Scheduler::fail(std::string_view message) {
  error_ = report(message, true);
  go_to_main();
}

std::string Scheduler::report(std::string_view message, bool in_thread) const {
  const auto& [x, y, z] = position.block;
  std::string text = "kernel " + short_name(launch_->kernel) + ", block (" + std::to_string(x) +
                     ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
  if (in_thread) text += ", thread " + std::to_string(position.thread);
  text += ": " + std::string(message);
  if (!in_thread) return text;
  const unsigned warps = position.threads / 32;
  for (unsigned w = 0; w < warps;) {
    const std::string state = state_of(w);
    unsigned last = w;
    while (last + 1 < warps && state_of(last + 1) == state) ++last;
    text += w == last ? "; warp " + std::to_string(w)
                      : "; warps " + std::to_string(w) + " to " + std::to_string(last);
    text += ": " + state;
    w = last + 1;
  }
  return text;
}

// "31 lanes at a shuffle, 1 ended".
std::string Scheduler::state_of(unsigned w) const {
  const Warp& warp = warps_[w];
  std::string text;
  const auto add = [&](uint32_t lanes, const std::string& what) {
    if (lanes == 0) return;
    if (!text.empty()) text += ", ";
    const int count = std::popcount(lanes);
    text += std::to_string(count) + (count == 1 ? " lane " : " lanes ") + what;
  };
  uint32_t at_collective = warp.live & ~warp.ready;
  for (int id = 0; id < 16; ++id) {
    const uint32_t lanes = barriers_[id].waiting[w];
    at_collective &= ~lanes;
    add(lanes, id == 0 ? "at barrier()" : "at barrier " + std::to_string(id));
  }
  add(at_collective, "at " + std::string(name_of(warp.kind)));
  add(warp.ready & warp.started, "running");
  add(warp.ready & ~warp.started, "not begun");
  add(~warp.live, "ended");
  return text;
}

}  // namespace simper::simt
