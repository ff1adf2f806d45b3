// Rotary positions [Su et al. 2021], in place, in the half-split layout of Hugging Face's Llama:
//   (a, b) = (x[i], x[i + D/2])  becomes  (a·cos − b·sin, b·cos + a·sin),   i < D/2
// The backward is the transpose of the rotation: the same with −sin.
//
// A thread turns N neighbouring pairs of one head: both halves move once in and once out, 4 or 8
// bytes per element. The table's row serves all heads of a token out of cache.
#include "cuda/check.h"
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

template <class T, int N>
SIMT_KERNEL(256)
rotate_kernel(Rows<T> x, const int32_t* positions, Rows<const float> table, int heads, int half,
              unsigned parts, float direction, IndexCheck check) {
  const Piece at = piece<N>(parts);  // `column` counts the pairs of a row
  if (at.column >= static_cast<int64_t>(heads) * half) return;
  const int32_t position = positions[at.row];
  if (!check_index(check, at.row, position)) return;
  const int pair = static_cast<int>(at.column), head = pair / half, i = pair % half;
  T* first = x[at.row] + static_cast<int64_t>(head) * 2 * half + i;
  T* second = first + half;
  float cos[N], sin[N], a[N], b[N], turned_a[N], turned_b[N];
  load_floats<N>(cos, table[position] + i);
  load_floats<N>(sin, table[position] + half + i);
  load_floats<N>(a, first);
  load_floats<N>(b, second);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float s = sin[j] * direction;
    turned_a[j] = a[j] * cos[j] - b[j] * s;
    turned_b[j] = b[j] * cos[j] + a[j] * s;
  }
  store_floats<N>(first, turned_a);
  store_floats<N>(second, turned_b);
}

void rotate(CudaContext& cuda, Tensor x, Tensor positions, Tensor table, int64_t heads,
            float direction, IndexCheck check) {
  const int64_t half = table.row_size() / 2;
  with_dtype(x.dtype, [&]<class T>(T*) {
    constexpr int kWide = kVector<T>;
    const bool wide = half % kWide == 0 && starts_at(x, 16) && x.row_stride % kWide == 0 &&
                      starts_at(table, 16) && table.row_stride % 4 == 0;
    with_width<kWide>(wide, [&]<int N>(Width<N>) {
      const Cover cover(x.rows(), heads * half, N);
      simt::launch<rotate_kernel<T, N>>(cuda, cover.grid, cover.threads, 0, rows_of<T>(x),
                                        positions.row<const int32_t>(0),
                                        rows_of<const float>(table), static_cast<int>(heads),
                                        static_cast<int>(half), cover.parts, direction, check);
    });
  });
}

}  // namespace

void rope_forward(Context& context, Tensor x, Tensor positions, Tensor table, int64_t heads) {
  CudaContext& cuda = cuda_of(context);
  rotate(cuda, x, positions, table, heads, 1.0f,
         cuda.check_indices("rope_forward", "positions", positions, 0, table.rows()));
}

void rope_backward(Context& context, Tensor dx, Tensor positions, Tensor table, int64_t heads) {
  CudaContext& cuda = cuda_of(context);
  rotate(cuda, dx, positions, table, heads, -1.0f,
         cuda.check_indices("rope_backward", "positions", positions, 0, table.rows()));
}

}  // namespace simper::cuda
