#pragma once
// The wrappers of simt.h for the emulator. Included by simt.h only. Every access to memory of a
// kernel is made here or in the kernel itself, so that sanitizers see it and know the thread; the
// runtime moves values between lanes and decides who runs.
#include <bit>
#include <cmath>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "core/tensor.h"
#include "cuda/context.h"
#include "emulator/runtime.h"

#define SIMT_DEVICE inline __attribute__((always_inline))
#define SIMT_KERNEL(threads) void
#define SIMT_KERNEL_BOUNDS(threads, blocks) void
#define SIMT_SHARED(name) ::simper::simt::SharedMemory name

namespace simper::simt {

SIMT_DEVICE unsigned thread() {
  return position.thread;
}
SIMT_DEVICE unsigned threads() {
  return position.threads;
}
SIMT_DEVICE Grid block() {
  return position.block;
}
SIMT_DEVICE Grid blocks() {
  return position.blocks;
}

// ---- waiting ------------------------------------------------------------------------------------

SIMT_DEVICE void barrier() {
  wait_at_barrier(0, threads());
}
SIMT_DEVICE void barrier(int id, int threads) {
  if (id < 1 || id > 15) fail("barrier(id, threads): ids are 1 to 15");
  wait_at_barrier(id, static_cast<unsigned>(threads));
}
SIMT_DEVICE void sync_warp() {
  Exchange exchange;
  meet(Collective::sync_warp, exchange);
}

// ---- between lanes ------------------------------------------------------------------------------

template <class T>
SIMT_DEVICE T shuffle(T value, int lane) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves registers");
  Exchange exchange;
  exchange.lane = lane & 31;
  exchange.in[1] = 0;
  std::memcpy(exchange.in, &value, sizeof(T));
  meet(Collective::shuffle, exchange);
  std::memcpy(&value, exchange.out, sizeof(T));
  return value;
}
template <class T>
SIMT_DEVICE T shuffle_xor(T value, int mask) {
  return shuffle(value, static_cast<int>(thread() % 32) ^ mask);
}
SIMT_DEVICE uint32_t ballot(bool flag) {
  Exchange exchange;
  exchange.in[0] = flag;
  meet(Collective::ballot, exchange);
  return exchange.out[0];
}

// ---- bits and numbers ---------------------------------------------------------------------------

SIMT_DEVICE float as_float(uint32_t bits) {
  return std::bit_cast<float>(bits);
}
SIMT_DEVICE uint32_t as_bits(float value) {
  return std::bit_cast<uint32_t>(value);
}
SIMT_DEVICE uint32_t pack_bf16(float low, float high) {
  return bf16(low).bits | static_cast<uint32_t>(bf16(high).bits) << 16;
}
SIMT_DEVICE float exp2_fast(float x) {
  return std::exp2(x);
}
SIMT_DEVICE int32_t atomic_compare_exchange(int32_t* p, int32_t expected, int32_t desired) {
  __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// ---- memory -------------------------------------------------------------------------------------

// The compiler takes the alignment of a Pack for granted: it must not see where the address is
// from.
SIMT_DEVICE void expect_aligned(const void* p, size_t bytes) {
  auto address = reinterpret_cast<uintptr_t>(p);
  asm("" : "+r"(address));
  if (address % bytes != 0) fail("elements that move at once are not aligned to all of them");
}
template <class P>
SIMT_DEVICE P load_whole(const P* p) {
  expect_aligned(p, sizeof(P));
  return *p;
}
template <class P>
SIMT_DEVICE void store_whole(P* p, const P& value) {
  expect_aligned(p, sizeof(P));
  *p = value;
}

// ---- shared memory and tensor cores -------------------------------------------------------------

SIMT_DEVICE void load_matrix(Collective kind, uint32_t (&r)[4], const bf16* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: a row is not aligned to 16");
  if (!is_shared(row, 16)) fail("ldmatrix: a row is not in shared memory");
  Exchange exchange;
  exchange.shared = row;
  std::memcpy(exchange.in, row, 16);
  meet(kind, exchange);
  std::memcpy(r, exchange.out, 16);
}
SIMT_DEVICE void load_matrix_4(uint32_t (&r)[4], const bf16* row) {
  load_matrix(Collective::load_matrix, r, row);
}
SIMT_DEVICE void load_matrix_4_transposed(uint32_t (&r)[4], const bf16* row) {
  load_matrix(Collective::load_matrix_transposed, r, row);
}
SIMT_DEVICE void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  Exchange exchange;
  std::memcpy(exchange.in, a, 16);
  exchange.in[4] = b0;
  exchange.in[5] = b1;
  std::memcpy(exchange.out, c, 16);
  meet(Collective::mma, exchange);
  std::memcpy(c, exchange.out, 16);
}

// The source is read now; the destination is NaN from now on until the wait that covers the copy.
SIMT_DEVICE void copy_async_16(void* shared, const void* global, bool valid) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0)
    fail("cp.async: the destination is not aligned to 16");
  if (!is_shared(shared, 16)) fail("cp.async: the destination is not in shared memory");
  if (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0)
    fail("cp.async: the source is not aligned to 16");
  Copy copy{shared, {}};
  if (valid) std::memcpy(copy.words, global, 16);
  constexpr uint32_t kNaN[4] = {~0u, ~0u, ~0u, ~0u};
  std::memcpy(shared, kNaN, 16);
  push_copy(copy, valid);
}
SIMT_DEVICE void copy_async_commit() {
  commit_copies();
}
template <int N>
SIMT_DEVICE void copy_async_wait() {
  Copy copy;
  while (pop_copy(N, copy)) std::memcpy(copy.shared, copy.words, 16);
}

// Arrays lie further apart than on the device: a red zone follows each.
class SharedMemory {
 public:
  template <class T>
  SIMT_DEVICE T* take(int count) {
    return static_cast<T*>(take_shared(offset_, static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  size_t offset_ = 0;
};

// ---- host ---------------------------------------------------------------------------------------

// "simper::cuda::fill_kernel<float>", out of the compiler's spelling of this function.
template <auto kernel>
constexpr std::string_view kernel_name() {
  constexpr std::string_view text = __PRETTY_FUNCTION__, before = "kernel = ";
  constexpr size_t begin = text.find(before) + before.size();
  return text.substr(begin, text.find_last_of(';') - begin);
}

template <auto kernel, class... Arguments>
void launch(cuda::CudaContext&, Grid grid, unsigned threads, size_t shared_bytes,
            Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  auto body = [&] { kernel(arguments...); };
  run({kernel_name<kernel>(), grid, threads, shared_bytes,
       [](void* self) { (*static_cast<decltype(body)*>(self))(); }, &body});
}

}  // namespace simper::simt
