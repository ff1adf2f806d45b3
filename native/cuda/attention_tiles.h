#pragma once
// Tiles of bf16 rows in shared memory and the products of their parts on tensor cores, for the
// attention kernels of head dims 64, 96 and 128.
//
//   A tile is row-major, D elements per row, its chunks of 16 bytes swizzled: chunk c of row r lies
//   where c ^ flip(r) would. The eight rows that one step of ldmatrix reads at the same chunk are
//   then in eight different groups of banks, and so are the chunks that a row is written in.
//
//   One warp computes 16·M rows by all columns. What lane l holds of a 16x8 piece c[4]:
//     rows l/4 (c[0], c[1]) and l/4 + 8 (c[2], c[3]), columns 2·(l%4) and the next.
#include "cuda/attention_walk.h"
#include "cuda/simt/simt.h"

namespace simper::cuda::attention {

constexpr unsigned kTileThreads = 128;  // 4 warps
constexpr int kTileWarps = kTileThreads / 32;

// The flips of a row: 8 rows of 128 or 256 bytes begin in the same bank, of 192 bytes every second.
template <int D>
constexpr int kFlips = D % 64 == 0 ? 7 : 3;

// Offset in elements of a chunk in a tile.
template <int D>
SIMT_DEVICE int swizzled(int row, int chunk) {
  return row * D + (chunk ^ ((D % 64 == 0 ? row : row >> 1) & kFlips<D>)) * 8;
}
// The offset `chunks` further on, an even number, from that of chunk 0 or 1: one exclusive or.
template <int D>
SIMT_DEVICE int further(int offset, int chunks) {
  return (offset ^ (chunks & kFlips<D>)*8) + (chunks & ~kFlips<D>)*8;
}

// Starts the copies of the rows [begin, end) from `rows` on, kRows at most; zeros behind them.
template <int D, int kRows>
SIMT_DEVICE void copy_tile(bf16* tile, Rows<const bf16> rows, int64_t column, int begin, int end) {
  constexpr int kLanes = D % 64 == 0 ? 8 : 4;  // along a row
  constexpr int kStep = static_cast<int>(kTileThreads) / kLanes;
  static_assert(kRows % kStep == 0 && D / 8 % kLanes == 0);
  const int row = static_cast<int>(simt::thread()) / kLanes;
  const int chunk = static_cast<int>(simt::thread()) % kLanes;
  // A multiple of 8 rows, or of kLanes chunks, further on has the same flip.
  bf16* to = tile + swizzled<D>(row, chunk);
  const bf16* from = rows[begin + row] + column + chunk * 8;
#pragma unroll 1
  for (int r = 0; r < kRows; r += kStep) {
    const bool valid = begin + row + r < end;
#pragma unroll
    for (int c = 0; c < D / 8; c += kLanes) {
      simt::copy_async_16(to + r * D + c * 8, from + c * 8, valid);
    }
    from += kStep * rows.stride;
  }
}

// c += a · bᵀ: a the rows from `row` on of a tile, b the first 8·N rows of another.
template <int D, int M, int N>
SIMT_DEVICE void multiply_transposed(float (&c)[M][N][4], const bf16* a, int row, const bf16* b) {
  const int lane = simt::lane();
  const int left_at = swizzled<D>(row + lane % 16, lane / 16);
  const int right_at = swizzled<D>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int k = 0; k < D / 8; k += 2) {
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      simt::load_matrix_4(left[m], a + further<D>(left_at, k) + 16 * m * D);
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t right[4];
      simt::load_matrix_4(right, b + further<D>(right_at, k) + 8 * n * D);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        simt::mma_16x8x16(c[m][n], left[m], right[0], right[1]);
        simt::mma_16x8x16(c[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// c += p · b: p in the registers that multiply_transposed filled, rounded to bf16 here; b the first
// 8·N rows of a tile.
template <int D, int M, int N>
SIMT_DEVICE void multiply(float (&c)[M][D / 8][4], const float (&p)[M][N][4], const bf16* b) {
  const int right_at = swizzled<D>(simt::lane() % 16, simt::lane() / 16);
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      left[m][0] = simt::pack_bf16(p[m][k][0], p[m][k][1]);
      left[m][1] = simt::pack_bf16(p[m][k][2], p[m][k][3]);
      left[m][2] = simt::pack_bf16(p[m][k + 1][0], p[m][k + 1][1]);
      left[m][3] = simt::pack_bf16(p[m][k + 1][2], p[m][k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      uint32_t right[4];
      simt::load_matrix_4_transposed(right, b + further<D>(right_at, n) + 8 * k * D);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        simt::mma_16x8x16(c[m][n], left[m], right[0], right[1]);
        simt::mma_16x8x16(c[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

template <int M, int N>
SIMT_DEVICE void clear(float (&c)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) c[m][n][e] = 0.0f;
    }
  }
}

// Writes the warp's 16·M rows factor·c to rows [begin, end) of `to`. They pass through the rows of
// `tile` from `row` on, which only this warp still uses, and leave in chunks of 16 bytes.
template <int D, int M>
SIMT_DEVICE void store_rows(Rows<bf16> to, int64_t column, bool aligned, int begin, int end,
                            bf16* tile, int row, const float (&c)[M][D / 8][4],
                            const float (&factor)[M][2]) {
  const int lane = simt::lane();
  simt::sync_warp();
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + 16 * m + 8 * half + lane / 4;
      const float f = factor[m][half];
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        bf16* at = tile + swizzled<D>(r, n) + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(at) =
            simt::pack_bf16(f * c[m][n][2 * half], f * c[m][n][2 * half + 1]);
      }
    }
  }
  simt::sync_warp();
  constexpr int kLanes = D % 64 == 0 ? 8 : 4;
#pragma unroll
  for (int i = 0; i < 16 * M; i += 32 / kLanes) {
    const int r = row + i + lane / kLanes, t = begin + r;
    if (t >= end) continue;
#pragma unroll
    for (int chunk = lane % kLanes; chunk < D / 8; chunk += kLanes) {
      const auto values = simt::load_pack<8>(tile + swizzled<D>(r, chunk));
      bf16* at = to[t] + column + chunk * 8;
      if (aligned) {
        simt::store_pack(at, values);
      } else {
        for (int e = 0; e < 8; ++e) at[e] = values.element[e];
      }
    }
  }
}

}  // namespace simper::cuda::attention
