#include "emulator/fiber.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "core/error.h"
#if defined(SIMPER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(SIMPER_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

// void simper_switch_stack(void** from, void* to): pushes what a function must preserve, exchanges
// the stack pointers, pops, and returns on the other stack. The floating-point control words are
// never changed by kernels.
#if defined(__x86_64__)
asm(R"(
.text
.hidden simper_switch_stack
.globl simper_switch_stack
.type simper_switch_stack, @function
simper_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size simper_switch_stack, . - simper_switch_stack
)");
namespace {
constexpr int kSaved = 6;       // registers below the return address
constexpr int kReturnSlot = 2;  // words from the top: the entry runs as if it had been called
constexpr int kFrameWords = kReturnSlot + kSaved;
}  // namespace
#elif defined(__aarch64__)
asm(R"(
.text
.hidden simper_switch_stack
.globl simper_switch_stack
.type simper_switch_stack, %function
simper_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size simper_switch_stack, . - simper_switch_stack
)");
namespace {
constexpr int kReturnSlot = 9;  // x30 in the frame of 20 words
constexpr int kFrameWords = 20;
}  // namespace
#else
#error "the emulator switches stacks on x86-64 and aarch64 only: add simper_switch_stack"
#endif
extern "C" __attribute__((visibility("hidden"))) void simper_switch_stack(void** from, void* to);

namespace simper::simt {
namespace {

// Device functions keep their arrays of registers on the stack; sanitizers put space around them.
#if defined(SIMPER_ASAN) || defined(SIMPER_TSAN)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

// What the launching thread did before a block, that block's threads see.
[[maybe_unused]] char block_begins;

size_t page() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

void prepare(Fiber& fiber, void (*entry)()) {
  void** top = reinterpret_cast<void**>(fiber.stack + fiber.stack_bytes);
  for (int i = 1; i <= kFrameWords; ++i) top[-i] = nullptr;
  top[-kReturnSlot] = reinterpret_cast<void*>(entry);
  fiber.stack_pointer = top - kFrameWords;
}

}  // namespace

void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] bool from_ends) {
#if defined(SIMPER_ASAN)
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(SIMPER_TSAN)
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
  simper_switch_stack(&from.stack_pointer, to.stack_pointer);
#if defined(SIMPER_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void fiber_entered() {
#if defined(SIMPER_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  happens_after(&block_begins);
}

void adopt_thread([[maybe_unused]] Fiber& fiber) {
#if defined(SIMPER_ASAN)
  pthread_attr_t attributes;
  void* begin;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &begin, &fiber.stack_bytes);
  pthread_attr_destroy(&attributes);
  fiber.stack = static_cast<char*>(begin);
#endif
#if defined(SIMPER_TSAN)
  fiber.tsan = __tsan_get_current_fiber();
#endif
}

FiberPool::FiberPool(void (*entry)()) : entry_(entry) {}

FiberPool::~FiberPool() {
  discard();
}

void FiberPool::map(Set& set, unsigned count) {
  const size_t each = kStackBytes + page();  // the lowest page of each stays out of reach
  void* memory = mmap(nullptr, count * each, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw MemoryError("no memory for the stacks of " + std::to_string(count) + " CUDA threads");
  set.memory = static_cast<char*>(memory);
  set.bytes = count * each;
  set.fibers.assign(count, Fiber());
  for (unsigned i = 0; i < count; ++i) {
    Fiber& fiber = set.fibers[i];
    fiber.stack = set.memory + i * each + page();
    // Tops at different places of a page: the cache holds only so many lines at one.
    fiber.stack_bytes = kStackBytes - i % 64 * 64;
#if defined(SIMPER_TSAN)
    fiber.tsan = __tsan_create_fiber(0);
#else
    mprotect(set.memory + i * each, page(), PROT_NONE);
#endif
  }
}

void FiberPool::unmap(Set& set) {
#if defined(SIMPER_TSAN)
  for (Fiber& fiber : set.fibers) __tsan_destroy_fiber(fiber.tsan);
#endif
  if (set.memory) munmap(set.memory, set.bytes);
  set = Set();
}

void FiberPool::reset(unsigned count) {
  happens_before(&block_begins);
  current_ = (current_ + 1) % kSets;
  Set& set = sets_[current_];
  if (count > set.fibers.size()) {
    unmap(set);
    map(set, count);
    free_.reserve(count);
  }
  free_.clear();
  for (size_t i = set.fibers.size(); i > 0; --i) free_.push_back(&set.fibers[i - 1]);
}

void FiberPool::discard() {
  for (Set& set : sets_) unmap(set);
  free_.clear();
}

Fiber* FiberPool::take() {
  Fiber* fiber = free_.back();
  free_.pop_back();
#if defined(SIMPER_ASAN)
  // Its last switch left frames behind.
  __asan_unpoison_memory_region(fiber->stack, fiber->stack_bytes);
#endif
  prepare(*fiber, entry_);
  return fiber;
}

#if defined(SIMPER_TSAN)
void happens_before(void* p) {
  __tsan_release(p);
}

void happens_after(void* p) {
  __tsan_acquire(p);
}
#endif

}  // namespace simper::simt
