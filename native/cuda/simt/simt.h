#pragma once
// What kernels are written against: one source, two targets. nvcc turns a wrapper into its PTX
// instruction (gpu.h); g++ compiles the same file against the emulator, where a CUDA thread is a
// fiber (emulator/simt_host.h). Both files define the same names; this one documents them and adds
// what is built from them. Kernels use nothing else of CUDA: no threadIdx, no static __shared__
// arrays, no inline PTX.
//
// clang-format off
//   SIMT_KERNEL(threads)                   before a kernel's name: void, and its launch bounds
//   SIMT_KERNEL_BOUNDS(threads, blocks)    the same with a number of blocks per multiprocessor
//   SIMT_DEVICE                            before a device function: inlined
//   SIMT_SHARED(memory)                    declares the block's SharedMemory
//   thread() threads() block() blocks()    place in the block and its size, place in the grid and its size
//   barrier()                              the whole block: waits, and orders memory
//   barrier(id, threads)                   named barrier 1..15 for `threads` of the block, whole warps
//   sync_warp()                            32 lanes: waits, and orders memory
//   shuffle(v, lane) shuffle_xor(v, mask) ballot(flag)    values between lanes; no ordering of memory
//   load_pack<N>(p) store_pack(p, pack)    N elements at once, p aligned to all of them
//   load_matrix_4(r, row) load_matrix_4_transposed(r, row)    ldmatrix.x4: four 8x8 matrices of bf16
//   mma_16x8x16(c, a, b0, b1)              c (16,8) f32 += a (16,16) bf16 · b (16,8) bf16
//   copy_async_16(shared, global, valid)   16 bytes, both aligned to 16; zeros where not valid
//   copy_async_commit() copy_async_wait<N>()    groups of copies; waits until at most N are in flight
//   exp2_fast(x)                           ex2.approx.ftz
//   pack_bf16(low, high)                   two f32, rounded to nearest even, in one register
//   atomic_compare_exchange(p, expected, desired)    of an int in global memory; returns what was there
//   launch<kernel>(context, grid, threads, shared_bytes, arguments...)    host: enqueues a kernel
// clang-format on
#include <cstddef>
#include <cstdint>

#include "core/tensor.h"
#include "cuda/simt/grid.h"

#ifdef __CUDACC__
#include "cuda/simt/gpu.h"
#else
#include "emulator/simt_host.h"
#endif

namespace simper::simt {

SIMT_DEVICE int lane() {
  return static_cast<int>(thread() % 32);
}
SIMT_DEVICE int warp() {
  return static_cast<int>(thread() / 32);
}

// ---- elements -----------------------------------------------------------------------------------

SIMT_DEVICE float as_float(uint32_t bits);
SIMT_DEVICE uint32_t as_bits(float value);

SIMT_DEVICE float low_half(uint32_t pair) {
  return as_float(pair << 16);
}
SIMT_DEVICE float high_half(uint32_t pair) {
  return as_float(pair & 0xffff0000u);
}

SIMT_DEVICE float to_float(float value) {
  return value;
}
SIMT_DEVICE float to_float(bf16 value) {
  return as_float(static_cast<uint32_t>(value.bits) << 16);
}
template <class T>
SIMT_DEVICE T from_float(float value);
template <>
SIMT_DEVICE float from_float<float>(float value) {
  return value;
}
template <>
SIMT_DEVICE bf16 from_float<bf16>(float value) {
  bf16 result;
  result.bits = static_cast<uint16_t>(pack_bf16(value, 0.0f));
  return result;
}

// N elements that move as one access; the address is aligned to all of them.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T element[N];
};
template <int N, class T>
SIMT_DEVICE Pack<T, N> load_pack(const T* p) {
  return load_whole(reinterpret_cast<const Pack<T, N>*>(p));
}
template <int N, class T>
SIMT_DEVICE void store_pack(T* p, const Pack<T, N>& pack) {
  store_whole(reinterpret_cast<Pack<T, N>*>(p), pack);
}

// ---- over the lanes of a warp, in a fixed order -------------------------------------------------

SIMT_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
SIMT_DEVICE float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

// The sum over a block of whole warps, in every thread. `partials` has one float per warp and may
// be used again after the next barrier.
SIMT_DEVICE float block_sum(float value, float* partials) {
  value = warp_sum(value);
  if (lane() == 0) partials[warp()] = value;
  barrier();
  float total = 0;
  for (unsigned w = 0; w < threads() / 32; ++w) total += partials[w];
  return total;
}

}  // namespace simper::simt
