// Rotary positions [Su et al. 2021], in place, in the half-split layout of Hugging Face's Llama:
//   (a, b) = (x[i], x[i + D/2])  becomes  (a·cos − b·sin, b·cos + a·sin),   i < D/2
// The backward is the transpose of the rotation: the same with −sin.
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

void rotate(Tensor x, Tensor positions, Tensor table, int64_t heads, float direction) {
  const int64_t D = table.row_size(), half = D / 2;
  const int32_t* position = positions.row<int32_t>(0);
  with_dtype(x.dtype, [&]<class T>(T*) {
    parallel_rows(x.rows(), 2 * heads * D * static_cast<int64_t>(sizeof(T)), [&](int64_t t) {
      const float* cosines = table.row<float>(position[t]);
      const float* sines = cosines + half;
      for (int64_t h = 0; h < heads; ++h) {
        T* first = x.row<T>(t) + h * D;
        T* second = first + half;
        for_lanes(half, [&](int64_t i, int64_t k) {
          const Vec cos = load(cosines + i, k), sin = load(sines + i, k) * direction;
          const Vec a = load(first + i, k), b = load(second + i, k);
          store(first + i, a * cos - b * sin, k);
          store(second + i, b * cos + a * sin, k);
        });
      }
    });
  });
}

}  // namespace

void rope_forward(Context&, Tensor x, Tensor positions, Tensor table, int64_t heads) {
  check_indices("rope_forward", "positions", positions, 0, table.rows());
  rotate(x, positions, table, heads, 1.0f);
}

void rope_backward(Context&, Tensor dx, Tensor positions, Tensor table, int64_t heads) {
  check_indices("rope_backward", "positions", positions, 0, table.rows());
  rotate(dx, positions, table, heads, -1.0f);
}

}  // namespace simper::cpu
