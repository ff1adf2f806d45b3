// y = x, rounded to nearest even in y's dtype. Overflow becomes infinity and a NaN stays a NaN. A
// thread moves as many elements as 16 bytes of the wider dtype hold: the sum of the two sizes in
// bytes per element.
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

// IEEE half precision: 1 sign, 5 exponent (bias 15) and 10 mantissa bits. Kept to this file: no
// other kernel sees it.
struct f16 {
  uint16_t bits;
};

// Exponent and mantissa move to their places in an f32; multiplying by 2^112 corrects the bias, and
// makes subnormals normal on the way.
SIMT_DEVICE float widen(f16 value) {
  const uint32_t magnitude = value.bits & 0x7fffu;
  const uint32_t finite = simt::as_bits(simt::as_float(magnitude << 13) * 0x1p112f);
  const uint32_t bits = magnitude >= 0x7c00u ? magnitude << 13 | 0x7f800000u : finite;
  return simt::as_float(bits | (value.bits & 0x8000u) << 16);
}
template <class T>
SIMT_DEVICE float widen(T value) {
  return simt::to_float(value);
}

SIMT_DEVICE void narrow(f16& result, float value) {
  const uint32_t u = simt::as_bits(value), magnitude = u & 0x7fffffffu;
  uint32_t bits = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the unit is 2^-24, which is the last place of 0.5f: the addition rounds.
    bits = simt::as_bits(simt::as_float(magnitude) + 0.5f) - 0x3f000000u;
  }
  if (magnitude >= 0x477ff000u) bits = 0x7c00u;  // 65520 and above
  if (magnitude > 0x7f800000u) bits = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  result.bits = static_cast<uint16_t>(bits | (u >> 16 & 0x8000u));
}
template <class T>
SIMT_DEVICE void narrow(T& result, float value) {
  result = simt::from_float<T>(value);
}

template <class To, class From, int N>
SIMT_KERNEL(256)
convert_kernel(Rows<To> y, Rows<const From> x, int64_t columns, unsigned parts) {
  const Piece at = piece<N>(parts);
  if (at.column >= columns) return;
  const auto from = simt::load_pack<N>(x[at.row] + at.column);
  simt::Pack<To, N> to;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(to.element[i], widen(from.element[i]));
  simt::store_pack(y[at.row] + at.column, to);
}

template <class F>
void with_stored_dtype(DType dtype, F&& f) {
  if (dtype == DType::f16) return f(static_cast<f16*>(nullptr));
  with_dtype(dtype, f);
}

}  // namespace

void convert(Context& context, Tensor y, Tensor x) {
  // Dense ones are one long row; both are, or neither.
  const bool dense = x.dense() && y.dense();
  const int64_t rows = dense ? 1 : x.rows(), columns = dense ? x.size() : x.row_size();
  with_stored_dtype(x.dtype, [&]<class From>(From*) {
    with_stored_dtype(y.dtype, [&]<class To>(To*) {
      constexpr int kWide = 16 / static_cast<int>(std::max(sizeof(From), sizeof(To)));
      const bool wide = columns % kWide == 0 && starts_at(x, kWide * sizeof(From)) &&
                        starts_at(y, kWide * sizeof(To)) &&
                        (dense || (x.row_stride % kWide == 0 && y.row_stride % kWide == 0));
      with_width<kWide>(wide, [&]<int N>(Width<N>) {
        const Cover cover(rows, columns, N);
        simt::launch<convert_kernel<To, From, N>>(cuda_of(context), cover.grid, cover.threads, 0,
                                                  rows_of<To>(y), rows_of<const From>(x), columns,
                                                  cover.parts);
      });
    });
  });
}

}  // namespace simper::cuda
