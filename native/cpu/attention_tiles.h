#pragma once
#include <memory>

#include "cpu/simd.h"

// Dense f32 tiles for attention: packing (bf16 is converted once per tile, k and v transposed where
// a product needs them) and one micro-kernel that all seven products of forward and backward share.
//
//              n = 16·N columns
//            ┌───────────────┐   c (kRows × n) (+)= a (kRows × depth) · b (depth × n)
//   kRows    │ c : registers │   One step of depth broadcasts kRows numbers of a and multiplies
//   them with N
//            └───────────────┘   vectors of b. a may be read transposed: a broadcast does not care
//            for layout.
//
//   Registers: 8×2 vectors of c with AVX-512 (of 32), 4×1 pairs with AVX2 (8 of 16). Each element
//   of c is one chain of fused multiply-adds in the order of depth, whatever tile it lies in.
namespace simper::cpu::attention {

#ifdef __AVX512F__
constexpr int64_t kRows = 8, kVecs = 2;
#else
constexpr int64_t kRows = 4, kVecs = 1;
#endif
constexpr int64_t kKeys = 64;  // keys of a key tile; also the row stride of a tile of scores

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Memory of one thread, kept from call to call: it grows while shapes are new and is never
// returned.
class Scratch {
 public:
  // Forgets what was taken before and makes room for `floats`.
  void reset(int64_t floats) {
    if (floats > capacity_) {
      data_.reset(static_cast<float*>(::operator new(sizeof(float) * floats, kAlign)));
      capacity_ = floats;
    }
    used_ = 0;
  }
  // n elements, aligned to a vector. Count them in floats, each taken array rounded up to kLanes.
  template <class T = float>
  T* take(int64_t n) {
    float* p = data_.get() + used_;
    used_ += round_up(n * static_cast<int64_t>(sizeof(T)), kLanes * 4) / 4;
    return reinterpret_cast<T*>(p);
  }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(float* p) const { ::operator delete(p, kAlign); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t capacity_ = 0, used_ = 0;
};

inline Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

// ---- products -----------------------------------------------------------------------------------

template <int64_t N, bool kTransposed, bool kAdd>
[[gnu::noinline]] void micro_kernel(float* c, int64_t ldc, const float* a, int64_t lda,
                                    const float* b, int64_t ldb, int64_t depth) {
  Vec sums[kRows][N];
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int64_t n = 0; n < N; ++n) sums[r][n] = kAdd ? load(c + r * ldc + n * kLanes) : Vec{};
  }
  for (int64_t k = 0; k < depth; ++k, b += ldb, a += kTransposed ? lda : 1) {
    Vec columns[N];
#pragma GCC unroll 4
    for (int64_t n = 0; n < N; ++n) columns[n] = load(b + n * kLanes);
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) {
      const Vec row = splat(a[kTransposed ? r : r * lda]);
#pragma GCC unroll 4
      for (int64_t n = 0; n < N; ++n) sums[r][n] += row * columns[n];
    }
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int64_t n = 0; n < N; ++n) store(c + r * ldc + n * kLanes, sums[r][n]);
  }
}

enum class Into { kSet, kAdd };  // c = or c +=
enum class Left {
  kRows,
  kColumns
};  // is a's step of depth its next column, or (aᵀ·b) its next row

// kRows rows of c, `vecs` vectors wide.
template <Into into, Left left>
inline void multiply(float* c, int64_t ldc, const float* a, int64_t lda, const float* b,
                     int64_t ldb, int64_t depth, int64_t vecs) {
  constexpr bool kTransposed = left == Left::kColumns, kAdd = into == Into::kAdd;
  int64_t v = 0;
  for (; v + kVecs <= vecs; v += kVecs) {
    micro_kernel<kVecs, kTransposed, kAdd>(c + v * kLanes, ldc, a, lda, b + v * kLanes, ldb, depth);
  }
  for (; v < vecs; ++v) {
    micro_kernel<1, kTransposed, kAdd>(c + v * kLanes, ldc, a, lda, b + v * kLanes, ldb, depth);
  }
}

// ---- packing ------------------------------------------------------------------------------------

// to (count, ld) = factor·from (count, D); columns [D, ld) become zeros. ld is a multiple of
// kLanes.
template <class T>
void pack(float* to, int64_t ld, const T* from, int64_t stride, int64_t count, int64_t D,
          float factor) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t d = 0; d < ld; d += kLanes) {
      store(to + i * ld + d, load(from + i * stride + d, D - d) * factor);
    }
  }
}

// from (count, D) = factor·to (count, ld).
template <class T>
void unpack(T* to, int64_t stride, const float* from, int64_t ld, int64_t count, int64_t D,
            float factor) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t d = 0; d < D; d += kLanes) {
      store(to + i * stride + d, load(from + i * ld + d) * factor, D - d);
    }
  }
}

// One stage of the 16×16 transpose: swaps the off-diagonal blocks of W×W inside each 2W×2W block.
template <int W>
inline void swap_blocks(Vec (&row)[kLanes]) {
  VecI32 low, high;  // lane l of the new upper and lower row, as an index into {upper, lower}
  for (int l = 0; l < kLanes; ++l) {
    low[l] = l & W ? kLanes + l - W : l;
    high[l] = l & W ? kLanes + l : l + W;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & W) continue;
    const Vec upper = row[i], lower = row[i + W];
    row[i] = __builtin_shuffle(upper, lower, low);
    row[i + W] = __builtin_shuffle(upper, lower, high);
  }
}

inline void transpose(Vec (&row)[kLanes]) {
  swap_blocks<8>(row);
  swap_blocks<4>(row);
  swap_blocks<2>(row);
  swap_blocks<1>(row);
}

// to (D, kKeys) = transpose of from (count, D), in groups of 16 keys; the missing keys of the last
// group are zeros, and groups without a key stay untouched: no product reads them.
template <class T>
void pack_transposed(float* to, const T* from, int64_t stride, int64_t count, int64_t D) {
  for (int64_t key = 0; key < count; key += kLanes) {
    for (int64_t d = 0; d < D; d += kLanes) {
      Vec row[kLanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i) {
        row[i] = key + i < count ? load(from + (key + i) * stride + d, D - d) : Vec{};
      }
      transpose(row);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i) {
        if (d + i < D) store(to + (d + i) * kKeys + key, row[i]);
      }
    }
  }
}

// ---- rows of scores -----------------------------------------------------------------------------

// Which keys of a tile the rows of a query tile see: position i those in [first + i, end + i), as
// far as the tile has them.
//
//   ■ ■ ■ · · ·    `end` is the diagonal in a tile of the own segment, `first` the edge of a
//   window. · ■ ■ ■ · ·    Where there is no such edge it is far away: every row is on the seen
//   side of it. · · ■ ■ ■ ·
struct Band {
  static constexpr int64_t kFar = int64_t{1} << 30;
  int64_t first = -kFar, end = kFar;
};

// v where the lane's column is in [first, end), else `hidden`.
inline Vec keep_visible(Vec v, int64_t column, int64_t first, int64_t end, float hidden) {
  constexpr VecI32 kLane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const VecI32 at = kLane + static_cast<int32_t>(column);
  const VecI32 seen = (at >= static_cast<int32_t>(first)) & (at < static_cast<int32_t>(end));
  return seen ? v : splat(hidden);
}

}  // namespace simper::cpu::attention
