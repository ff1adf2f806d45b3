#pragma once
#include <memory>
#include <string>
#include <vector>

#include "emulator/copies.h"
#include "emulator/fiber.h"
#include "emulator/runtime.h"
#include "emulator/shared.h"

namespace simper::simt {

// Runs launches on the thread that owns it. A CUDA thread runs until it has to wait, then hands
// over to another one of its block; blocks run one after another.
class Scheduler {
 public:
  Scheduler();

  void configure(const Settings& settings) { settings_ = settings; }
  void run(const Launch& launch);
  Counters& counters() { return counters_; }

  // Called by the running CUDA thread.
  void barrier(int id, unsigned expected);
  void meet(Collective kind, Exchange& exchange);
  [[noreturn]] void fail(std::string_view message);
  SharedArena& shared() { return shared_; }
  CopyQueue& copies() { return copies_[position.thread]; }

  // Body of every fiber.
  [[noreturn]] void run_threads();

 private:
  static constexpr unsigned kMaxThreads = 1024, kMaxWarps = kMaxThreads / 32;

  struct Warp {
    uint32_t started, live, ready;  // one bit per lane
    uint32_t arrived;               // at `kind`
    Collective kind;
    Exchange* lanes[32];
    int turn;  // of collectives: what orders one turn is not what orders the next
  };
  struct Barrier {
    unsigned arrived, expected;
    uint32_t waiting[kMaxWarps];  // one bit per lane
    int turn;
  };

  void begin_block(unsigned index);
  void end_block();
  void thread_ends();
  int next_thread();  // -1: none can run
  void go_to(int thread, bool from_ends);
  [[noreturn]] void go_to_main();
  void start(int thread, Fiber* fiber);
  void set_waiting(unsigned thread);
  void set_ready(unsigned warp, uint32_t lanes);
  void wait();
  void maybe_set_aside();
  void check_launch() const;
  uint64_t random();
  std::string report(std::string_view message, bool in_thread) const;
  std::string state_of(unsigned warp) const;

  Settings settings_;
  Counters counters_;
  const Launch* launch_ = nullptr;
  SharedArena shared_;
  FiberPool fibers_;
  Fiber main_;
  Fiber* running_ = &main_;
  std::string error_;
  std::unique_ptr<CopyQueue[]> copies_;
  std::vector<unsigned> order_;  // of blocks
  uint64_t random_ = 0;

  // The block that runs.
  unsigned live_ = 0;
  uint32_t ready_warps_ = 0;
  unsigned current_warp_ = 0;
  Fiber* fiber_[kMaxThreads] = {};
  Warp warps_[kMaxWarps] = {};
  Barrier barriers_[16] = {};
  char all_ended_ = 0;  // what a launch orders, for ThreadSanitizer
};

// The scheduler of the calling thread.
Scheduler& scheduler();

}  // namespace simper::simt
