// y = x, rounded to nearest even in y's dtype. Overflow becomes infinity and a NaN stays a NaN.
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

// IEEE half precision: 1 sign, 5 exponent (bias 15) and 10 mantissa bits. Kept to this file: no
// other kernel sees it. Not in an unnamed namespace, so that simd.h's partial loads and stores find
// these.
struct f16 {
  uint16_t bits;
};

// Exponent and mantissa move to their places in an f32; multiplying by 2^112 corrects the bias, and
// makes subnormals normal on the way.
static Vec load(const f16* p) {
  VecU16 half;
  std::memcpy(&half, p, sizeof half);
  const VecU32 u = __builtin_convertvector(half, VecU32);
  const VecU32 magnitude = u & 0x7fffu;
  const VecU32 finite = std::bit_cast<VecU32>(std::bit_cast<Vec>(magnitude << 13) * 0x1p112f);
  const VecU32 bits = magnitude >= 0x7c00u ? (magnitude << 13) | 0x7f800000u : finite;
  return std::bit_cast<Vec>(bits | (u & 0x8000u) << 16);
}

static void store(f16* p, Vec v) {
  const VecU32 u = std::bit_cast<VecU32>(v);
  const VecU32 magnitude = u & 0x7fffffffu;
  const VecU32 normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 the unit is 2^-24, which is the last place of 0.5f: the addition rounds.
  const VecU32 subnormal = std::bit_cast<VecU32>(std::bit_cast<Vec>(magnitude) + 0.5f) -
                           std::bit_cast<VecU32>(splat(0.5f));
  const VecU32 quiet_nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  VecU32 bits = magnitude < 0x38800000u ? subnormal : normal;
  bits = magnitude >= 0x477ff000u ? (magnitude - magnitude) + 0x7c00u : bits;  // 65520 and above
  bits = magnitude > 0x7f800000u ? quiet_nan : bits;
  const VecU16 half = __builtin_convertvector(bits | ((u >> 16) & 0x8000u), VecU16);
  std::memcpy(p, &half, sizeof half);
}

namespace {

template <class F>
void with_stored_dtype(DType dtype, F&& f) {
  if (dtype == DType::f16) return f(static_cast<f16*>(nullptr));
  with_dtype(dtype, f);
}

}  // namespace

void convert(Context&, Tensor y, Tensor x) {
  constexpr int64_t kBlock = 1 << 14;
  const bool dense = x.dense() && y.dense();
  const int64_t rows = dense ? 1 : x.rows(), columns = dense ? x.size() : x.row_size();
  with_stored_dtype(x.dtype, [&]<class From>(From*) {
    with_stored_dtype(y.dtype, [&]<class To>(To*) {
      for (int64_t t = 0; t < rows; ++t) {
        const From* from = x.row<From>(t);
        To* to = y.row<To>(t);
        parallel_blocks(columns, kBlock, [&](int64_t begin, int64_t end) {
          for_lanes(end - begin, [&](int64_t i, int64_t k) {
            store(to + begin + i, load(from + begin + i, k), k);
          });
        });
      }
    });
  });
}

}  // namespace simper::cpu
