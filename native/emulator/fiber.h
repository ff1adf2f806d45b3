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

  // Before a block: `count` fibers exist and are free. To ThreadSanitizer, to which making one
  // costs a quarter of a millisecond, the threads of two blocks on the same fibers follow each
  // other: there are several sets, taken in turn, so that blocks close to each other stay
  // unordered.
  void reset(unsigned count);
  // After a launch that failed: its fibers stopped in the middle.
  void discard();
  Fiber* take();
  // The running fiber may give itself back before its last switch.
  void give_back(Fiber* fiber) { free_.push_back(fiber); }
  // For happens_before and happens_after: each set's own, so that blocks do not follow each other.
  void* sync_object(unsigned i) const { return sets_[current_].memory + 8 * i; }

 private:
#if defined(SIMPER_TSAN)
  static constexpr unsigned kSets = 3;
#else
  static constexpr unsigned kSets = 1;
#endif
  struct Set {
    char* memory = nullptr;
    size_t bytes = 0;
    std::vector<Fiber> fibers;
  };
  static void map(Set& set, unsigned count);
  static void unmap(Set& set);

  void (*entry_)();
  Set sets_[kSets];
  unsigned current_ = 0;
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
