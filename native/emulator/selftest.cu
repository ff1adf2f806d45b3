// Kernels that judge the emulator: sound ones whose results are known, and one for every kind of
// mistake that it has to notice. test/cuda/emulator.test.ts runs them under every policy.
//   simper_selftest KERNEL
// prints `values: ...` with what the kernel wrote, then the counters; or `error: ...`.
#include <cstdio>
#include <cstring>
#include <exception>
#include <string_view>
#include <vector>

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/simt/simt.h"

namespace simper {
namespace {

using namespace simt;

constexpr int kThreads = 64;

// ---- sound
// ------------------------------------------------------------------------------------------------

// Everybody takes what another thread wrote.
SIMT_KERNEL(kThreads) exchange(float* out) {
  SIMT_SHARED(memory);
  float* shared = memory.take<float>(kThreads);
  const int i = static_cast<int>(thread());
  shared[i] = static_cast<float>(i);
  barrier();
  out[i] = shared[kThreads - 1 - i];
}

// The sum of all thread numbers and the block's, in each thread.
SIMT_KERNEL(kThreads) sums(float* out) {
  SIMT_SHARED(memory);
  float* partials = memory.take<float>(kThreads / 32);
  const unsigned index = block().y * blocks().x + block().x;
  out[index * kThreads + thread()] =
      static_cast<float>(index) + block_sum(static_cast<float>(thread()), partials);
}

SIMT_KERNEL(32) votes(float* out) {
  const uint32_t odd = ballot(thread() % 2 == 1);
  const double wide = shuffle(static_cast<double>(thread()), 31 - static_cast<int>(thread()));
  out[thread()] = odd == 0xaaaaaaaau ? static_cast<float>(wide) : -1.0f;
}

// Two warps that take turns at a named barrier each.
SIMT_KERNEL(kThreads) named(float* out) {
  SIMT_SHARED(memory);
  float* shared = memory.take<float>(kThreads);
  shared[thread()] = static_cast<float>(warp());
  barrier(1 + warp(), 32);
  out[thread()] = shared[thread() ^ 31u];
}

// c (16,8) = a (16,16) · bᵀ with a[i][k] = i − k, b[j][k] = (j + k) mod 4: whole numbers, exact in
// bf16. `kRow`: elements from row to row of the matrices in shared memory.
template <int kRow, bool kTransposed>
SIMT_DEVICE void multiply(float* out) {
  SIMT_SHARED(memory);
  bf16* a = memory.take<bf16>(16 * kRow);
  bf16* b = memory.take<bf16>(16 * kRow);
  for (int e = lane(); e < 256; e += 32) {
    const int i = e / 16, k = e % 16;
    a[i * kRow + k] = from_float<bf16>(static_cast<float>(i - k));
    const int row = kTransposed ? k : i, column = kTransposed ? i : k;
    b[row * kRow + column] = from_float<bf16>(static_cast<float>((i + k) % 4));
  }
  barrier();
  // Matrices of ldmatrix: rows 0-7 and 8-15 of the left half, then of the right half.
  const int r = lane() % 16, c = lane() / 16 * 8;
  uint32_t fa[4], fb[4];
  load_matrix_4(fa, a + r * kRow + c);
  if constexpr (kTransposed) {
    load_matrix_4_transposed(fb, b + r * kRow + c);
  } else {
    load_matrix_4(fb, b + r * kRow + c);
  }
  float sum[4] = {};
  // b's fragment: k 0-7 and k 8-15 of columns j 0-7.
  mma_16x8x16(sum, fa, fb[0], kTransposed ? fb[1] : fb[2]);
  for (int q = 0; q < 4; ++q) out[(lane() / 4 + q / 2 * 8) * 8 + lane() % 4 * 2 + q % 2] = sum[q];
}
SIMT_KERNEL(32) product(float* out) {
  multiply<24, false>(out);  // rows 48 bytes apart: eight of them meet every bank once
}
SIMT_KERNEL(32) product_transposed(float* out) {
  multiply<24, true>(out);
}
SIMT_KERNEL(32) conflicts(float* out) {
  multiply<64, false>(out);  // rows 128 bytes apart begin in the same bank
}

template <class Before>
SIMT_DEVICE void copy_tile(float* out, const float* in, int offset, Before before) {
  SIMT_SHARED(memory);
  float* shared = memory.take<float>(4 * kThreads);
  float* mine = shared + 4 * thread();
  copy_async_16(mine, in + 4 * thread() + offset, thread() != 3);
  copy_async_commit();
  before();
  barrier();
  out[thread()] = shared[4 * (thread() ^ 1u)];
}
// Tiles by cp.async; thread 3 has nothing to copy and gets zeros.
SIMT_KERNEL(kThreads) copies(float* out, const float* in) {
  copy_tile(out, in, 0, [] { copy_async_wait<0>(); });
}

// ---- each with one mistake
// --------------------------------------------------------------------------------

SIMT_KERNEL(kThreads) missing_barrier(float* out) {
  SIMT_SHARED(memory);
  float* shared = memory.take<float>(kThreads);
  const int i = static_cast<int>(thread());
  shared[i] = static_cast<float>(i);
  out[i] = shared[kThreads - 1 - i];
}

// Thread 0 tells all others a number: right as long as thread 0 goes first.
SIMT_KERNEL(kThreads) lucky_barrier(float* out) {
  SIMT_SHARED(memory);
  float* shared = memory.take<float>(1);
  if (thread() == 0) *shared = 5;
  out[thread()] = *shared;
}

SIMT_KERNEL(kThreads) missing_wait(float* out, const float* in) {
  copy_tile(out, in, 0, [] {});
}
SIMT_KERNEL(kThreads) late_wait(float* out, const float* in) {
  copy_tile(out, in, 0, [] { copy_async_wait<1>(); });
  copy_async_wait<0>();
}
SIMT_KERNEL(kThreads) misaligned_copy(float* out, const float* in) {
  copy_tile(out, in, 1, [] { copy_async_wait<0>(); });
}
SIMT_KERNEL(kThreads) copy_to_global(float* out, const float* in) {
  copy_async_16(out, in, true);
  copy_async_commit();
  copy_async_wait<0>();
}

SIMT_KERNEL(kThreads) divergent_barrier(float* out) {
  if (warp() == 0) barrier();
  out[thread()] = 1;
}
SIMT_KERNEL(kThreads) barrier_after_exit(float* out) {
  if (thread() == 40) return;
  sync_warp();
  barrier();
  out[thread()] = 1;
}
SIMT_KERNEL(kThreads) deadlock(float* out) {
  barrier(1 + warp(), kThreads);
  out[thread()] = 1;
}
SIMT_KERNEL(kThreads) different_counts(float* out) {
  barrier(1, warp() == 0 ? 32 + 32 : 32);
  out[thread()] = 1;
}
SIMT_KERNEL(32) different_collectives(float* out) {
  out[thread()] = thread() < 16 ? static_cast<float>(ballot(true)) : shuffle(1.0f, 0);
}
SIMT_KERNEL(32) collective_after_exit(float* out) {
  if (thread() >= 16) return;
  out[thread()] = shuffle(1.0f, 0);
}

SIMT_KERNEL(kThreads) shared_overrun(float* out) {
  SIMT_SHARED(memory);
  memory.take<float>(kThreads);
  out[thread()] = memory.take<float>(4096)[0];
}
SIMT_KERNEL(kThreads) shared_overflow(float* out) {
  SIMT_SHARED(memory);
  float* shared = memory.take<float>(kThreads);
  memory.take<float>(kThreads);
  shared[thread() + 1] = 1;
  out[thread()] = 1;
}
SIMT_KERNEL(kThreads) misaligned_store(float* out) {
  store_pack(out + 1, Pack<float, 4>{});
}
SIMT_KERNEL(32) misaligned_matrix(float* out) {
  SIMT_SHARED(memory);
  bf16* row = memory.take<bf16>(64);
  uint32_t r[4];
  load_matrix_4(r, row + 4);
  out[thread()] = as_float(r[0]);
}

// ---- the command line
// -------------------------------------------------------------------------------------

struct Memory {
  alignas(64) float out[4 * kThreads + 4];
  alignas(64) float in[4 * kThreads + 4];
};

template <auto kernel>
void plain(cuda::CudaContext& context, Memory& memory) {
  launch<kernel>(context, {}, kThreads, 4096, memory.out);
}
template <auto kernel>
void one_warp(cuda::CudaContext& context, Memory& memory) {
  launch<kernel>(context, {}, 32, 8192, memory.out);
}
template <auto kernel>
void with_input(cuda::CudaContext& context, Memory& memory) {
  launch<kernel>(context, {}, kThreads, 4096, memory.out, const_cast<const float*>(memory.in));
}
void four_blocks(cuda::CudaContext& context, Memory& memory) {
  launch<sums>(context, {2, 2}, kThreads, 128, memory.out);
}
void half_a_warp(cuda::CudaContext& context, Memory& memory) {
  launch<votes>(context, {}, 16, 0, memory.out);
}
void too_much_shared(cuda::CudaContext& context, Memory& memory) {
  launch<votes>(context, {}, 32, 300 << 10, memory.out);
}
void too_many_rows(cuda::CudaContext& context, Memory& memory) {
  launch<votes>(context, {1, 70000}, 32, 0, memory.out);
}

struct Entry {
  const char* name;
  void (*run)(cuda::CudaContext&, Memory&);
  int values;  // that it writes
};

constexpr Entry kEntries[] = {
    {"exchange", plain<exchange>, kThreads},
    {"sums", four_blocks, 4 * kThreads},
    {"votes", one_warp<votes>, 32},
    {"named", plain<named>, kThreads},
    {"product", one_warp<product>, 128},
    {"product_transposed", one_warp<product_transposed>, 128},
    {"conflicts", one_warp<conflicts>, 128},
    {"copies", with_input<copies>, kThreads},
    {"missing_barrier", plain<missing_barrier>, kThreads},
    {"lucky_barrier", plain<lucky_barrier>, kThreads},
    {"missing_wait", with_input<missing_wait>, kThreads},
    {"late_wait", with_input<late_wait>, kThreads},
    {"misaligned_copy", with_input<misaligned_copy>, kThreads},
    {"copy_to_global", with_input<copy_to_global>, kThreads},
    {"divergent_barrier", plain<divergent_barrier>, kThreads},
    {"barrier_after_exit", plain<barrier_after_exit>, kThreads},
    {"deadlock", plain<deadlock>, kThreads},
    {"different_counts", plain<different_counts>, kThreads},
    {"different_collectives", one_warp<different_collectives>, 32},
    {"collective_after_exit", one_warp<collective_after_exit>, 32},
    {"shared_overrun", plain<shared_overrun>, kThreads},
    {"shared_overflow", plain<shared_overflow>, kThreads},
    {"misaligned_store", plain<misaligned_store>, kThreads},
    {"misaligned_matrix", one_warp<misaligned_matrix>, 32},
    {"half_a_warp", half_a_warp, 0},
    {"too_much_shared", too_much_shared, 0},
    {"too_many_rows", too_many_rows, 0},
};

void print(const Entry& entry, const Memory& memory) {
  std::printf("values:");
  for (int i = 0; i < entry.values; ++i) std::printf(" %g", static_cast<double>(memory.out[i]));
  const Counters& c = counters();
  std::printf("\nbank_conflicts: %lld\ncopied_bytes: %lld\nmma: %lld\n",
              static_cast<long long>(c.bank_conflicts), static_cast<long long>(c.copied_bytes),
              static_cast<long long>(c.mma));
}

int main(int count, char** words) {
  const std::string_view wanted = count == 2 ? words[1] : "";
  for (const Entry& entry : kEntries) {
    if (wanted != entry.name) continue;
    static Memory memory;
    std::memset(memory.out, 0xff, sizeof memory.out);
    for (int i = 0; i < 4 * kThreads + 4; ++i) memory.in[i] = static_cast<float>(i);
    try {
      cuda::CudaContext context;
      entry.run(context, memory);
      print(entry, memory);
      return 0;
    } catch (const std::exception& error) {
      std::printf("error: %s\n", error.what());
    }
    try {  // and a launch that failed leaves the next one alone
      cuda::CudaContext context;
      kEntries[0].run(context, memory);
      for (int i = 0; i < kThreads; ++i) {
        if (memory.out[i] != static_cast<float>(kThreads - 1 - i)) return 3;
      }
    } catch (const std::exception&) {
      return 3;
    }
    return 1;
  }
  std::fprintf(stderr, "usage: simper_selftest KERNEL\n");
  return 2;
}

}  // namespace
}  // namespace simper

int main(int count, char** words) {
  return simper::main(count, words);
}
