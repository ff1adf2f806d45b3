#pragma once
#include <cmath>

#include "cpu/attention_tiles.h"

// bf16 tiles for attention on the AMX unit: packing and the one product of forward and backward.
//
//            32 columns
//          ┌─────┬─────┐   c 32×32 f32 (+)= a (32 × depth) · b (depth × 32)
//    32    │  0  │  1  │   per 32 of depth: a in tiles 4, 5 (16 rows × 32), b in tiles 6, 7
//    rows  ├─────┼─────┤   (16 pairs of rows × 16 columns), four TDPBF16PS of 16 cycles
//          │  2  │  3  │
//          └─────┴─────┘   b lies in pairs: dword (i, n) = {b[2i][n], b[2i+1][n]}
//
//   Whatever is padded to whole tiles is padded with zeros. Each element of c is one chain in the
//   order of depth, as in the f32 micro-kernel, so zeros before or after it do not move its bits.
namespace simper::cpu::attention {

// Whether this process may use the AMX unit: asks the kernel for it at the first call.
bool amx_available();

}  // namespace simper::cpu::attention

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define SIMPER_ATTENTION_AMX
#include <immintrin.h>

namespace simper::cpu::attention::amx {

constexpr int64_t kBlock = 32;  // rows, columns and depth that one step of the product takes

using Pair = uint32_t;  // two bf16 that follow each other in depth, the first in the lower half

// All eight tiles as 16 rows of 64 bytes, while this lives. oneDNN configures the tiles of a thread
// for its own kernels, so nobody may count on what an earlier task left there.
class TileConfiguration {
 public:
  TileConfiguration() { _tile_loadconfig(&kSixteenByFull); }
  ~TileConfiguration() { _tile_release(); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;

 private:
  struct alignas(64) Palette {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static constexpr Palette kSixteenByFull{
      1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
};

// c (32×32), rows ldc apart. A stride of b counts pairs.
template <Into into>
[[gnu::noinline]] void multiply_block(float* c, int64_t ldc, const bf16* a, int64_t lda,
                                      const Pair* b, int64_t ldb, int64_t depth) {
  asm volatile("" ::: "memory");  // the compiler does not see what tileload reads
  const int64_t c_bytes = 4 * ldc, a_bytes = 2 * lda, b_bytes = 4 * ldb;
  float* const lower = c + 16 * ldc;
  if constexpr (into == Into::kAdd) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + 16, c_bytes);
    _tile_loadd(2, lower, c_bytes);
    _tile_loadd(3, lower + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = 0; k < depth; k += kBlock, a += kBlock, b += kBlock / 2 * ldb) {
    _tile_loadd(4, a, a_bytes);
    _tile_loadd(6, b, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + 16, b_bytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + 16 * lda, a_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + 16, c_bytes);
  _tile_stored(2, lower, c_bytes);
  _tile_stored(3, lower + 16, c_bytes);
}

// 32 rows of c, `columns` wide, a multiple of 32.
template <Into into>
inline void multiply(float* c, int64_t ldc, const bf16* a, int64_t lda, const Pair* b, int64_t ldb,
                     int64_t depth, int64_t columns) {
  for (int64_t n = 0; n < columns; n += kBlock) {
    multiply_block<into>(c + n, ldc, a, lda, b + n, ldb, depth);
  }
}

// In one instruction, which takes subnormals for zeros, as TDPBF16PS does.
inline VecU16 round_to_bf16(Vec v) {
  return std::bit_cast<VecU16>(_mm512_cvtneps_pbh(std::bit_cast<__m512>(v)));
}

// e^x for x up to about 0, in half the instructions of simd.h: x = n·ln2 + r, a degree-5 polynomial
// for e^r, and an instruction that scales by 2^n and keeps NaN. Relative error below 3e-7, where p
// is about to lose all but 4e-3; exactly 0 below -87.3.
inline Vec exp(Vec x) {
  const Vec shifter = splat(12582912.0f);  // 1.5·2^23: adding it rounds to the nearest integer
  const Vec n = (x * 1.44269504089f + shifter) - shifter;
  const Vec r = x - n * 0.69314718056f;
  Vec p = splat(8.3125224337e-3f);
  p = p * r + 4.1890159249e-2f;
  p = p * r + 1.6667114198e-1f;
  p = p * r + 4.9999231100e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto unless_lower = _mm512_cmp_ps_mask(std::bit_cast<__m512>(x),
                                               std::bit_cast<__m512>(splat(-87.336f)), _CMP_NLT_UQ);
  return std::bit_cast<Vec>(
      _mm512_maskz_scalef_ps(unless_lower, std::bit_cast<__m512>(p), std::bit_cast<__m512>(n)));
}

// to (count, width) = from (count, D), with zeros in the columns from D on.
inline void pack_rows(bf16* to, int64_t width, const bf16* from, int64_t stride, int64_t count,
                      int64_t D) {
  for (int64_t i = 0; i < count; ++i, to += width, from += stride) {
    std::memcpy(to, from, D * sizeof(bf16));
    std::fill(to + D, to + width, bf16(0.0f));
  }
}

// Columns [d, d + 16) of rows i and i + 1 as pairs; zeros outside of (count, D).
inline Vec load_row_pairs(const bf16* from, int64_t stride, int64_t i, int64_t d, int64_t count,
                          int64_t D) {
  const auto bits = [&](int64_t row) {  // in the upper halves
    return row < count && d < D ? std::bit_cast<VecU32>(load(from + row * stride + d, D - d))
                                : VecU32{};
  };
  return std::bit_cast<Vec>((bits(i) >> 16) | bits(i + 1));
}

// to (pairs of rows, width) = from (count, D): what b takes. Rows are padded to a block.
inline void pack_row_pairs(Pair* to, int64_t width, const bf16* from, int64_t stride, int64_t count,
                           int64_t D) {
  for (int64_t i = 0; i < round_up(count, kBlock); i += 2, to += width) {
    for (int64_t d = 0; d < width; d += kLanes) {
      const Vec pairs = load_row_pairs(from, stride, i, d, count, D);
      std::memcpy(to + d, &pairs, sizeof pairs);
    }
  }
}

// to (pairs of D, ld) = transpose of from (count, D): b again. Rows are padded to a block, as D is.
inline void pack_transposed_pairs(Pair* to, int64_t ld, const bf16* from, int64_t stride,
                                  int64_t count, int64_t D) {
  for (int64_t i = 0; i < round_up(count, kBlock); i += kLanes) {
    for (int64_t d = 0; d < D; d += kBlock) {
      Vec row[kLanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) {
        row[j] = Vec{};
        const bf16* p = from + (i + j) * stride + d;
        if (i + j < count && D - d >= kBlock) std::memcpy(&row[j], p, sizeof row[j]);
        if (i + j < count && D - d < kBlock) std::memcpy(&row[j], p, (D - d) * sizeof(bf16));
      }
      transpose(row);
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) {
        std::memcpy(to + (d / 2 + j) * ld + i, &row[j], sizeof row[j]);
      }
    }
  }
}

// The products of the forward: s = q·kᵀ, without the 1/√D that bf16 has no room for, and o += p·v.
class Forward {
 public:
  static constexpr int64_t kRows = kBlock, kKeyStep = kBlock;
  using Probability = bf16;

  static int64_t floats(int64_t rows, int64_t D) {
    const int64_t width = width_of(D);
    return round_up(rows, kRows) * width / 2 + kKeys * width + kRows * kKeys / 2;
  }
  static int64_t width_of(int64_t D) { return round_up(D, kBlock); }

  Forward(Scratch& scratch, int64_t rows, int64_t D)
      : D_(D), width_(width_of(D)), score_factor_(1.0f / std::sqrt(static_cast<float>(D))) {
    q_ = scratch.take<bf16>(round_up(rows, kRows) * width_);
    k_transposed_ = scratch.take<Pair>(width_ / 2 * kKeys);
    v_ = scratch.take<Pair>(kKeys / 2 * width_);
    p_ = scratch.take<bf16>(kRows * kKeys);
    std::fill(q_ + rows * width_, q_ + round_up(rows, kRows) * width_, bf16(0.0f));
  }

  float score_factor() const { return score_factor_; }
  bf16* probabilities(float*) { return p_; }

  static Vec store_exp(bf16* p, Vec x) {
    const Vec e = exp(x);
    const VecU16 rounded = round_to_bf16(e);
    std::memcpy(p, &rounded, sizeof rounded);
    return e;
  }

  void pack_queries(int64_t row, const bf16* q, int64_t count) {
    pack_rows(q_ + row * width_, width_, q, D_, count, D_);
  }
  void pack_keys(const bf16* k, const bf16* v, int64_t stride, int64_t count) {
    pack_transposed_pairs(k_transposed_, kKeys, k, stride, count, D_);
    pack_row_pairs(v_, width_, v, stride, count, D_);
  }
  void scores(float* s, int64_t row, int64_t keys) const {
    multiply<Into::kSet>(s, kKeys, q_ + row * width_, width_, k_transposed_, kKeys, width_, keys);
  }
  void add_values(float* o, const bf16* p, int64_t keys) const {
    multiply<Into::kAdd>(o, width_, p, kKeys, v_, width_, round_up(keys, kBlock), width_);
  }

 private:
  TileConfiguration tiles_;
  int64_t D_, width_;
  float score_factor_;
  bf16 *q_, *p_;
  Pair *k_transposed_, *v_;
};

}  // namespace simper::cpu::attention::amx
#endif
