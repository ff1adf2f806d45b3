// Flash-attention forward on packed segments with shared prefixes and grouped heads.   [Dao 2023,
// alg. 1]
//   o = softmax(q·kᵀ/√D + mask)·v        lse = logsumexp of each row, kept for the backward
//
//                 keys ──► 32 or 64             one block: a query tile of one head, 4 warps
//              ┌──────┬──────┬──────┐           one warp : 16 or 32 rows by all keys, by all of D
//   64 or 128  │ full │ full │ diag │           registers: scores, o (rows x D, f32), max, sum
//   queries    └──────┴──────┴──────┘           shared   : q, one tile of k, one of v (bf16)
//
//   v lands while the scores are computed, the next k during the softmax and p·v: one buffer each,
//   and two barriers per tile. Softmax in base 2; sums of a row stay partial in 4 lanes until the
//   end. Only tails and diagonals pay for the mask. p is rounded to bf16 before p·v.
//
//   nvcc 13.0, registers at sm_80 / sm_90a (none spilled) and shared memory of a block:
//     D = 64    64 rows  143 / 143  24 KiB     128 rows  222 / 223  32 KiB
//     D = 96    64 rows  157 / 157  36 KiB     128 rows  247 / 251  48 KiB
//     D = 128   64 rows  178 / 178  48 KiB     128 rows  243 / 255  48 KiB, 32 keys
//   Cost: 4·D FLOPs per visible couple and head; bytes per token 4·(H+K)·D, and k and v again for
//   each query tile, from L2. Ridge: 128 FLOPs per byte read at 128 rows.
#include <cmath>

#include "cuda/attention_tiles.h"

namespace simper::cuda::attention {
namespace {

// The largest score and the sum of exponentials of the rows that a lane has a part of.
template <int M>
struct Softmax {
  float top[M][2], sum[M][2];  // top: unscaled; sum: of this lane's columns

  SIMT_DEVICE Softmax() {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) top[m][half] = -INFINITY, sum[m][half] = 0.0f;
    }
  }

  // Turns scores into probabilities relative to the largest score so far, and o with them.
  template <int N, int kColumns>
  SIMT_DEVICE void fold(float (&s)[M][N][4], float (&o)[M][kColumns][4], float scale) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int a = 2 * half, b = a + 1;
        float largest = top[m][half];
#pragma unroll
        for (int n = 0; n < N; ++n) largest = fmaxf(largest, fmaxf(s[m][n][a], s[m][n][b]));
        largest = fmaxf(largest, simt::shuffle_xor(largest, 1));
        largest = fmaxf(largest, simt::shuffle_xor(largest, 2));
        // A row that has seen no key yet: every exponent is -inf, not -inf + inf.
        const float shift = largest == -INFINITY ? 0.0f : largest * scale;
        const float factor = simt::exp2_fast(top[m][half] * scale - shift);
        top[m][half] = largest;
        float gained = 0.0f;
#pragma unroll
        for (int n = 0; n < N; ++n) {
          s[m][n][a] = simt::exp2_fast(s[m][n][a] * scale - shift);
          s[m][n][b] = simt::exp2_fast(s[m][n][b] * scale - shift);
          gained += s[m][n][a] + s[m][n][b];
        }
        sum[m][half] = sum[m][half] * factor + gained;
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
          o[m][n][a] *= factor;
          o[m][n][b] *= factor;
        }
      }
    }
  }
};

// Keys that a row does not see get the score -inf. `row` is the lane's first row.
template <int M, int N>
SIMT_DEVICE void hide(float (&s)[M][N][4], const Keys& keys, int tile, int row) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int visible = keys.visible(tile, row + 16 * m + 8 * half) - simt::lane() % 4 * 2;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        if (8 * n >= visible) s[m][n][2 * half] = -INFINITY;
        if (8 * n + 1 >= visible) s[m][n][2 * half + 1] = -INFINITY;
      }
    }
  }
}

// Keys per tile: scores of 64 and o of 32 rows by 128 columns do not fit in registers together.
template <int D, int M>
constexpr int kKeys = D* M > 192 ? 32 : 64;

// M pieces of 16 rows per warp.
template <int D, int M>
SIMT_KERNEL_BOUNDS(kTileThreads, 2)
forward_kernel(Forward<bf16> a) {
  constexpr int kRows = 16 * kTileWarps * M, kTileKeys = kKeys<D, M>;
  SIMT_SHARED(memory);
  bf16* q = memory.take<bf16>(kRows * D);
  bf16* k = memory.take<bf16>(kTileKeys * D);
  bf16* v = memory.take<bf16>(kTileKeys * D);

  const int index = static_cast<int>(simt::block().x) / a.heads.queries;
  const int head = static_cast<int>(simt::block().x) % a.heads.queries;
  if (index >= a.plan.counts[0]) return;
  const QueryTile tile = a.plan.queries[index];
  const Keys keys(tile, kTileKeys);
  const int kv = head / a.heads.group();
  const int warp_row = simt::warp() * 16 * M;
  const int row = tile.begin + warp_row + simt::lane() / 4;
  const float scale = a.heads.scale * kLog2E;

  copy_tile<D, kRows>(q, a.qkv, a.heads.q(head), tile.begin, tile.end);
  copy_tile<D, kTileKeys>(k, a.qkv, a.heads.k(kv), keys.begin(0), keys.end(0));
  simt::copy_async_commit();

  Softmax<M> softmax;
  float o[M][D / 8][4];
  clear(o);
  for (int t = 0; t < keys.tiles; ++t) {
    simt::copy_async_wait<0>();
    simt::barrier();  // k has landed for everybody, and nobody reads the last v any more
    copy_tile<D, kTileKeys>(v, a.qkv, a.heads.v(kv), keys.begin(t), keys.end(t));
    simt::copy_async_commit();

    float s[M][kTileKeys / 8][4];
    clear(s);
    multiply_transposed<D>(s, q, warp_row, k);
    if (keys.is_masked(t, tile.begin + warp_row)) hide(s, keys, t, row);

    simt::copy_async_wait<0>();
    simt::barrier();  // v has landed, and nobody reads this k any more
    if (t + 1 < keys.tiles) {
      copy_tile<D, kTileKeys>(k, a.qkv, a.heads.k(kv), keys.begin(t + 1), keys.end(t + 1));
      simt::copy_async_commit();
    }
    softmax.fold(s, o, scale);
    multiply<D>(o, s, v);
  }

  float factor[M][2];
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = softmax.sum[m][half];
      sum += simt::shuffle_xor(sum, 1);
      sum += simt::shuffle_xor(sum, 2);
      factor[m][half] = 1.0f / sum;
      const int t = row + 16 * m + 8 * half;
      if (simt::lane() % 4 == 0 && t < tile.end) {
        a.lse[t][head] = softmax.top[m][half] * a.heads.scale + logf(sum);
      }
    }
  }
  store_rows<D>(a.o, a.heads.q(head), a.o_aligned, tile.begin, tile.end, q, warp_row, o, factor);
}

}  // namespace

// Sequences shorter than two tiles waste too much of 128 rows.
int forward_bf16_rows(int64_t T, int64_t S) {
  return T >= 256 * S ? 128 : 64;
}

void forward_bf16(CudaContext& cuda, const Forward<bf16>& call) {
  with_head_dim(call.heads.dim, [&]<int D>(Width<D>) {
    const simt::Grid grid{static_cast<unsigned>(call.plan.query_limit * call.heads.queries)};
    const auto launch = [&]<int M>(Width<M>) {
      const size_t shared = (64 * M + 2 * kKeys<D, M>)*D * sizeof(bf16);
      simt::launch<forward_kernel<D, M>>(cuda, grid, kTileThreads, shared, call);
    };
    if (call.plan.query_rows == 128) return launch(Width<2>{});
    launch(Width<1>{});
  });
}

}  // namespace simper::cuda::attention
