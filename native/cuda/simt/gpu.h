#pragma once
// The wrappers of simt.h as PTX. Included by simt.h only, compiled by nvcc only.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda/context.h"

#define SIMT_DEVICE __device__ __forceinline__
#define SIMT_KERNEL(threads) __global__ void __launch_bounds__(threads)
#define SIMT_KERNEL_BOUNDS(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define SIMT_SHARED(name)                                        \
  extern __shared__ __align__(128) unsigned char simt_shared_[]; \
  ::simper::simt::SharedMemory name(simt_shared_)

namespace simper::simt {

SIMT_DEVICE unsigned thread() {
  return threadIdx.x;
}
SIMT_DEVICE unsigned threads() {
  return blockDim.x;
}
SIMT_DEVICE Grid block() {
  return {blockIdx.x, blockIdx.y, blockIdx.z};
}
SIMT_DEVICE Grid blocks() {
  return {gridDim.x, gridDim.y, gridDim.z};
}

// ---- waiting ------------------------------------------------------------------------------------

SIMT_DEVICE void barrier() {
  __syncthreads();
}
SIMT_DEVICE void barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
SIMT_DEVICE void sync_warp() {
  __syncwarp();
}

// ---- between lanes ------------------------------------------------------------------------------

template <class T>
SIMT_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
SIMT_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
SIMT_DEVICE uint32_t ballot(bool flag) {
  return __ballot_sync(0xffffffffu, flag);
}

// ---- bits and numbers ---------------------------------------------------------------------------

SIMT_DEVICE float as_float(uint32_t bits) {
  return __uint_as_float(bits);
}
SIMT_DEVICE uint32_t as_bits(float value) {
  return __float_as_uint(value);
}
SIMT_DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
SIMT_DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
SIMT_DEVICE int32_t atomic_compare_exchange(int32_t* p, int32_t expected, int32_t desired) {
  return atomicCAS(p, expected, desired);
}

// ---- memory -------------------------------------------------------------------------------------

template <class P>
SIMT_DEVICE P load_whole(const P* p) {
  return *p;
}
// One store of 8 or 16 bytes. nvcc stores a struct member by member, also one of its own vector
// types, and puts them together again only sometimes; loads it always does.
template <class P>
SIMT_DEVICE void store_whole(P* p, const P& value) {
  if constexpr (sizeof(P) == 16) {
    uint4 words;
    memcpy(&words, &value, 16);
    asm volatile("st.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(words.x), "r"(words.y),
                 "r"(words.z), "r"(words.w)
                 : "memory");
  } else if constexpr (sizeof(P) == 8) {
    uint2 words;
    memcpy(&words, &value, 8);
    asm volatile("st.v2.b32 [%0], {%1,%2};" ::"l"(p), "r"(words.x), "r"(words.y) : "memory");
  } else {
    *p = value;
  }
}

// ---- shared memory and tensor cores -------------------------------------------------------------

SIMT_DEVICE uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
SIMT_DEVICE void load_matrix_4(uint32_t (&r)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
SIMT_DEVICE void load_matrix_4_transposed(uint32_t (&r)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
SIMT_DEVICE void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
SIMT_DEVICE void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
SIMT_DEVICE void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N>
SIMT_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// The dynamic shared memory of a block, handed out front to back in multiples of 128 bytes.
class SharedMemory {
 public:
  SIMT_DEVICE explicit SharedMemory(unsigned char* begin) : next_(begin) {}
  template <class T>
  SIMT_DEVICE T* take(int count) {
    T* result = reinterpret_cast<T*>(next_);
    next_ += (count * sizeof(T) + 127) / 128 * 128;
    return result;
  }

 private:
  unsigned char* next_;
};

// ---- host ---------------------------------------------------------------------------------------

template <auto kernel, class... Arguments>
void launch(cuda::CudaContext& context, Grid grid, unsigned threads, size_t shared_bytes,
            Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cuda::allow_shared_memory(reinterpret_cast<const void*>(kernel), shared_bytes);
  kernel<<<dim3(grid.x, grid.y, grid.z), threads, shared_bytes, context.stream>>>(arguments...);
  cuda::check_launch();
}

}  // namespace simper::simt
