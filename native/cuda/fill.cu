// x[...] = value. One 16-byte store per thread: 2 or 4 bytes per element, nothing read.
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

template <class T, int N>
SIMT_KERNEL(256)
fill_kernel(Rows<T> x, int64_t columns, unsigned parts, float value) {
  const Piece at = piece<N>(parts);
  if (at.column >= columns) return;
  float values[N];
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = value;
  store_floats<N>(x[at.row] + at.column, values);
}

}  // namespace

void fill(Context& context, Tensor x, float value) {
  const Tensor rows = as_matrix(x);
  with_dtype(x.dtype, [&]<class T>(T*) {
    with_width<kVector<T>>(moves_16(rows), [&]<int N>(Width<N>) {
      const Cover cover(rows.rows(), rows.row_size(), N);
      simt::launch<fill_kernel<T, N>>(cuda_of(context), cover.grid, cover.threads, 0,
                                      rows_of<T>(rows), rows.row_size(), cover.parts, value);
    });
  });
}

}  // namespace simper::cuda
