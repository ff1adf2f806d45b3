#pragma once
// Stacks to run on, and the switch between them. SIMPER_TSAN tells the race detector about fibers:
// its switches order nothing, so that only what the scheduler says (`happens_before`,
// `happens_after`) does.
#include <cstddef>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define SIMPER_ASAN 1
#endif

namespace simper::simt {

// One flow of control: the launching thread, or a stack made by FiberPool.
struct Fiber {
  void* stack_pointer = nullptr;  // while it is not running
  char* stack = nullptr;          // lowest address
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;        // ThreadSanitizer's
};

// Goes on where `to` stopped; returns when somebody switches back. `from_ends`: nobody will.
void switch_fiber(Fiber& from, Fiber& to, bool from_ends);
// First statement of a fiber's entry function.
void fiber_entered();

// Hands out fibers that start in `entry` when they are switched to.
class FiberPool {
 public:
  explicit FiberPool(void (*entry)());
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  // Before a block: all stacks are free again, and `count` fibers exist. Under ThreadSanitizer
  // their stacks are new memory, since a stack used by two threads in turn would look like a race.
  void reset(unsigned count);
  Fiber* take();
  // The running fiber may give itself back before its last switch.
  void give_back(Fiber* fiber) { free_.push_back(fiber); }
  // For happens_before and happens_after: as new as the stacks, so that blocks do not follow each
  // other.
  void* sync_object(unsigned i) const { return memory_ + 8 * i; }

 private:
  void map(unsigned count);
  void unmap();

  void (*entry_)();
  char* memory_ = nullptr;
  size_t bytes_ = 0;
  std::vector<Fiber> fibers_;
  std::vector<Fiber*> free_;
};

// The launching thread as a fiber.
void adopt_thread(Fiber& fiber);

// ThreadSanitizer: what was done before happens_before(p) is seen after happens_after(p).
#if defined(SIMPER_TSAN)
void happens_before(void* p);
void happens_after(void* p);
#else
inline void happens_before(void*) {}
inline void happens_after(void*) {}
#endif

}  // namespace simper::simt
