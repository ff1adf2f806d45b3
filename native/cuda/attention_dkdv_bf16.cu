// Flash-attention backward, second half: the gradients of k and v.             [Dao 2023, alg. 2]
//   pᵀ = exp(k·qᵀ/√D − lse)   dv = pᵀ·do   dsᵀ = pᵀ∘(v·doᵀ − delta)   dk = dsᵀ·q/√D
//
//   One block: a key tile of 64 rows of one key/value head, over the query tiles that see it: its
//   own segment from the diagonal on, then the segments that have it as prefix, in the order of the
//   table; in each the query heads of the group one after another. So the heads of a group and the
//   branches of a prompt are summed in registers, in a fixed order, without atomics.
//
//   4 warps, one warp 16 keys by 64 queries: everything is computed transposed, and p and ds pass
//   from one product to the next in registers. Registers: pᵀ, dpᵀ, dk, dv (16 x D, f32). Shared: k,
//   v, one tile of do and two of q: the next q lands during the whole round, the next do during
//   dsᵀ·q. At D = 128 the 64 queries are taken in two halves.
//
//   nvcc 13.0, registers at sm_80 / sm_90a (none spilled) and shared memory of a block:
//     D = 64   213 / 222  41 KiB     D = 96   242 / 242  61 KiB     D = 128   246 / 245  81 KiB
//   8·D FLOPs per visible couple and head; q and do are read once per 64 keys.
#include <cmath>

#include "cuda/attention_tiles.h"

namespace simper::cuda::attention {
namespace {

constexpr int kKeys = kBackwardRows, kRows = 64;
static_assert(kKeys == 16 * kTileWarps);

// lse (in base 2) of rows 0 … 63 of a query tile, and behind them delta: one number per thread. A
// row that does not exist has p = exp2(-inf) = 0.
SIMT_DEVICE float load_number(const Backward<bf16>& a, const Visits& visit, int head) {
  const int thread = static_cast<int>(simt::thread()), t = visit.begin() + thread % kRows;
  if (thread < kRows) return t < visit.end() ? a.lse[t][head] * kLog2E : INFINITY;
  return t < visit.end() ? a.delta[t][head] : 0.0f;
}
static_assert(kTileThreads == 2 * kRows);

// Queries at once: p and ds of 64, dk and dv of 128 columns do not fit in registers together.
template <int D>
constexpr int kQueries = D > 96 ? 32 : 64;

template <int D>
SIMT_KERNEL_BOUNDS(kTileThreads, 2)
dkdv_kernel(Backward<bf16> a) {
  constexpr int kPart = kQueries<D>;
  SIMT_SHARED(memory);
  bf16* k = memory.take<bf16>(kKeys * D);
  bf16* v = memory.take<bf16>(kKeys * D);
  bf16* q = memory.take<bf16>(2 * kRows * D);
  bf16* d_o = memory.take<bf16>(kRows * D);
  float* numbers = memory.take<float>(2 * 2 * kRows);

  const int index = static_cast<int>(simt::block().x) / a.heads.keys;
  const int kv = static_cast<int>(simt::block().x) % a.heads.keys;
  if (index >= a.plan.counts[1]) return;
  const KeyTile tile = a.plan.keys[index];
  const int group = a.heads.group(), first_head = kv * group;
  const int warp_row = simt::warp() * 16;
  const int key = tile.begin + warp_row + simt::lane() / 4;
  const int column = simt::lane() % 4 * 2;
  const float scale = a.heads.scale * kLog2E;

  Visits visit(a.plan, tile, kRows, group);
  copy_tile<D, kKeys>(k, a.qkv, a.heads.k(kv), tile.begin, tile.end);
  copy_tile<D, kKeys>(v, a.qkv, a.heads.v(kv), tile.begin, tile.end);
  copy_tile<D, kRows>(q, a.qkv, a.heads.q(first_head), visit.begin(), visit.end());
  copy_tile<D, kRows>(d_o, a.d_o, a.heads.q(first_head), visit.begin(), visit.end());
  simt::copy_async_commit();
  numbers[simt::thread()] = load_number(a, visit, first_head);

  float dk[1][D / 8][4], dv[1][D / 8][4];
  clear(dk);
  clear(dv);
  bool more = true;
  for (int round = 0; more; ++round) {
    const bf16* q_now = q + round % 2 * kRows * D;
    const float* lse = numbers + round % 2 * 2 * kRows + column;
    const float* delta = lse + kRows;
    // How many queries from the tile's first on do not see the lane's first key.
    const int blind =
        visit.is_diagonal(tile.begin + kKeys - 1) ? key - visit.begin() - column : -kRows;
    more = visit.next();
    const int next_head = first_head + visit.head();

    simt::copy_async_wait<0>();
    simt::barrier();  // q and do have landed for everybody, and nobody reads the last q any more
    float next_number = 0.0f;
    if (more) {
      copy_tile<D, kRows>(q + (round + 1) % 2 * kRows * D, a.qkv, a.heads.q(next_head),
                          visit.begin(), visit.end());
      next_number = load_number(a, visit, next_head);
    }
#pragma unroll 1
    for (int first = 0; first < kRows; first += kPart) {
      float p[1][kPart / 8][4], ds[1][kPart / 8][4];
      clear(p);
      multiply_transposed<D>(p, k, warp_row, q_now + first * D);
#pragma unroll
      for (int n = 0; n < kPart / 8; ++n) {
        const auto lses = simt::load_pack<2>(lse + first + 8 * n);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float value = simt::exp2_fast(p[0][n][e] * scale - lses.element[e % 2]);
          p[0][n][e] = first + 8 * n + e % 2 >= blind + e / 2 * 8 ? value : 0.0f;
        }
      }
      multiply<D>(dv, p, d_o + first * D);
      clear(ds);
      multiply_transposed<D>(ds, v, warp_row, d_o + first * D);
      if (first + kPart == kRows) {
        simt::barrier();  // nobody reads this do any more
        if (more) {
          copy_tile<D, kRows>(d_o, a.d_o, a.heads.q(next_head), visit.begin(), visit.end());
          simt::copy_async_commit();
        }
      }
#pragma unroll
      for (int n = 0; n < kPart / 8; ++n) {
        const auto deltas = simt::load_pack<2>(delta + first + 8 * n);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          // A hidden p is 0, but what it is multiplied with may not be finite.
          const float value = p[0][n][e] * (ds[0][n][e] - deltas.element[e % 2]);
          ds[0][n][e] = first + 8 * n + e % 2 >= blind + e / 2 * 8 ? value : 0.0f;
        }
      }
      multiply<D>(dk, ds, q_now + first * D);
    }
    if (more) numbers[(round + 1) % 2 * 2 * kRows + simt::thread()] = next_number;
  }

  const float scales[1][2] = {{a.heads.scale, a.heads.scale}}, ones[1][2] = {{1.0f, 1.0f}};
  store_rows<D>(a.d_qkv, a.heads.k(kv), a.d_qkv_aligned, tile.begin, tile.end, k, warp_row, dk,
                scales);
  store_rows<D>(a.d_qkv, a.heads.v(kv), a.d_qkv_aligned, tile.begin, tile.end, v, warp_row, dv,
                ones);
}

}  // namespace

void dkdv_bf16(CudaContext& cuda, const Backward<bf16>& call) {
  with_head_dim(call.heads.dim, [&]<int D>(Width<D>) {
    const simt::Grid grid{static_cast<unsigned>(call.plan.key_limit * call.heads.keys)};
    const size_t shared = (2 * kKeys + 3 * kRows) * D * sizeof(bf16) + 4 * kRows * sizeof(float);
    simt::launch<dkdv_kernel<D>>(cuda, grid, kTileThreads, shared, call);
  });
}

}  // namespace simper::cuda::attention
