// Flash-attention backward, first half: the gradient of q, and delta.          [Dao 2023, alg. 2]
//   p = exp(s − lse)   dp = do·vᵀ   ds = p∘(dp − delta)   dq = ds·k/√D   delta = rowsum(do∘o)
//
//   One block: a query tile of 64 rows of one head over all key tiles it sees, in the order of the
//   forward; 4 warps, one warp 16 rows by 64 keys. Registers: s, dp, dq (16 x D, f32). Shared: q,
//   do, one tile of v and two of k, which is read first and last in a round: the next k lands
//   during the whole round, the next v while ds·k runs. delta is summed by 8 lanes per row while
//   the first tiles land, and stored for the second half (attention_dkdv_bf16.cu).
//
//   nvcc 13.0, registers at sm_80 / sm_90a (none spilled) and shared memory of a block:
//     D = 64   168 / 168  40 KiB     D = 96   216 / 220  60 KiB     D = 128   232 / 236  80 KiB
//   No atomics: each dq has one writer. That costs s and dp once more in the second half: 7
//   products instead of 5. 6·D FLOPs per visible couple and head here; k and v are read once per 64
//   queries.
#include <cmath>

#include "cuda/attention_tiles.h"

namespace simper::cuda::attention {
namespace {

constexpr int kRows = kBackwardRows, kKeys = 64;
static_assert(kRows == 16 * kTileWarps);

// delta of the tile's rows, 8 lanes per row; the same for all lanes of a row.
template <int D>
SIMT_DEVICE float dot_of_row(const bf16* a, const bf16* b, bool aligned) {
  const int part = simt::lane() % 8;
  float sum = 0.0f;
#pragma unroll
  for (int d = 8 * part; d < D; d += 64) {
    float x[8], y[8];
    load_floats(x, a + d);
    if (aligned) {
      load_floats(y, b + d);
    } else {
      for (int e = 0; e < 8; ++e) y[e] = simt::to_float(b[d + e]);
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) sum += x[e] * y[e];
  }
#pragma unroll
  for (int mask = 4; mask > 0; mask /= 2) sum += simt::shuffle_xor(sum, mask);
  return sum;
}

template <int D>
SIMT_KERNEL_BOUNDS(kTileThreads, D == 64 ? 3 : 2)
dq_kernel(Backward<bf16> a) {
  SIMT_SHARED(memory);
  bf16* q = memory.take<bf16>(kRows * D);
  bf16* d_o = memory.take<bf16>(kRows * D);
  bf16* k = memory.take<bf16>(2 * kKeys * D);
  bf16* v = memory.take<bf16>(kKeys * D);
  float* deltas = memory.take<float>(kRows);

  const int index = static_cast<int>(simt::block().x) / a.heads.queries;
  const int head = static_cast<int>(simt::block().x) % a.heads.queries;
  if (index >= a.plan.counts[0]) return;
  const QueryTile tile = a.plan.queries[index];
  const Keys keys(tile, kKeys);
  const int kv = head / a.heads.group();
  const int warp_row = simt::warp() * 16;
  const int row = tile.begin + warp_row + simt::lane() / 4;

  copy_tile<D, kRows>(q, a.qkv, a.heads.q(head), tile.begin, tile.end);
  copy_tile<D, kRows>(d_o, a.d_o, a.heads.q(head), tile.begin, tile.end);
  copy_tile<D, kKeys>(k, a.qkv, a.heads.k(kv), keys.begin(0), keys.end(0));
  copy_tile<D, kKeys>(v, a.qkv, a.heads.v(kv), keys.begin(0), keys.end(0));
  simt::copy_async_commit();

#pragma unroll 1
  for (int i = 0; i < 16; i += 4) {
    const int r = warp_row + i + simt::lane() / 8, t = tile.begin + r;
    const int64_t from = t < tile.end ? t : tile.begin;  // every lane takes part in the sum
    const float delta =
        dot_of_row<D>(a.d_o[from] + a.heads.q(head), a.o[from] + a.heads.q(head), a.o_aligned);
    if (simt::lane() % 8 != 0) continue;
    deltas[r] = t < tile.end ? delta : 0.0f;
    if (t < tile.end) a.delta[t][head] = delta;
  }
  simt::sync_warp();
  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int t = row + 8 * half;
    // A row that does not exist has p = exp2(-inf) = 0.
    lse[half] = t < tile.end ? a.lse[t][head] * kLog2E : INFINITY;
    delta[half] = deltas[warp_row + simt::lane() / 4 + 8 * half];
  }

  const float scale = a.heads.scale * kLog2E;
  float dq[1][D / 8][4];
  clear(dq);
  for (int t = 0; t < keys.tiles; ++t) {
    const bf16* k_now = k + t % 2 * kKeys * D;
    simt::copy_async_wait<0>();
    simt::barrier();  // k and v have landed for everybody, and nobody reads the last k any more
    if (t + 1 < keys.tiles) {
      // One group with v, below: both are waited for together.
      copy_tile<D, kKeys>(k + (t + 1) % 2 * kKeys * D, a.qkv, a.heads.k(kv), keys.begin(t + 1),
                          keys.end(t + 1));
    }
    float s[1][kKeys / 8][4], dp[1][kKeys / 8][4];
    clear(s);
    multiply_transposed<D>(s, q, warp_row, k_now);
    clear(dp);
    multiply_transposed<D>(dp, d_o, warp_row, v);
    simt::barrier();  // nobody reads this v any more
    if (t + 1 < keys.tiles) {
      copy_tile<D, kKeys>(v, a.qkv, a.heads.v(kv), keys.begin(t + 1), keys.end(t + 1));
      simt::copy_async_commit();
    }
    const bool masked = keys.is_masked(t, tile.begin + warp_row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int visible = masked ? keys.visible(t, row + 8 * half) - simt::lane() % 4 * 2 : kKeys;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = s[0][n][2 * half + e];
          const float p = simt::exp2_fast(score * scale - lse[half]);
          score = 8 * n + e < visible ? p * (dp[0][n][2 * half + e] - delta[half]) : 0.0f;
        }
      }
    }
    multiply<D>(dq, s, k_now);
  }

  const float factor[1][2] = {{a.heads.scale, a.heads.scale}};
  store_rows<D>(a.d_qkv, a.heads.q(head), a.d_qkv_aligned, tile.begin, tile.end, q, warp_row, dq,
                factor);
}

}  // namespace

void dq_bf16(CudaContext& cuda, const Backward<bf16>& call) {
  with_head_dim(call.heads.dim, [&]<int D>(Width<D>) {
    const simt::Grid grid{static_cast<unsigned>(call.plan.query_limit * call.heads.queries)};
    const size_t shared = (2 * kRows + 3 * kKeys) * D * sizeof(bf16) + kRows * sizeof(float);
    simt::launch<dq_kernel<D>>(cuda, grid, kTileThreads, shared, call);
  });
}

}  // namespace simper::cuda::attention
