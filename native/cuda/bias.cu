// x += bias on every row; its gradient is the sum of dy over rows.
//
// A thread owns N neighbouring columns. Forward: of one row, read and written once, 2s bytes per
// element of s bytes. Backward: of a block of rows, of which it adds its columns one row after the
// other; s bytes per element, and 4 bytes of partial sums for at least 8 of them, which a second
// kernel adds (partial_sums.h).
#include "cuda/dispatch.h"
#include "cuda/partial_sums.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

template <class T, int N>
SIMT_KERNEL(256)
add_bias_kernel(Rows<T> x, const T* bias, int64_t columns, unsigned parts) {
  const Piece at = piece<N>(parts);
  if (at.column >= columns) return;
  float values[N], added[N];
  T* row = x[at.row] + at.column;
  load_floats<N>(values, row);
  load_floats<N>(added, bias + at.column);
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] += added[i];
  store_floats<N>(row, values);
}

template <class T, int N>
SIMT_KERNEL(256)
bias_backward_kernel(float* partials, Rows<const T> dy, int64_t T_rows, int64_t columns,
                     int64_t rows_per_block, unsigned parts) {
  const Piece at = piece<N>(parts);  // `row` counts blocks of rows
  if (at.column >= columns) return;
  const int64_t first = at.row * rows_per_block;
  const int64_t end = first + rows_per_block < T_rows ? first + rows_per_block : T_rows;
  float sums[N] = {};
#pragma unroll 4
  for (int64_t t = first; t < end; ++t) {
    float values[N];
    load_floats<N>(values, dy[t] + at.column);
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i] += values[i];
  }
  store_floats<N>(partials + at.row * columns + at.column, sums);
}

}  // namespace

void add_bias(Context& context, Tensor x, Tensor bias) {
  const int64_t columns = x.row_size();
  if (columns == 0) return;
  with_dtype(x.dtype, [&]<class T>(T*) {
    const bool wide = moves_16(x) && starts_at(bias, 16);
    with_width<kVector<T>>(wide, [&]<int N>(Width<N>) {
      const Cover cover(x.rows(), columns, N);
      simt::launch<add_bias_kernel<T, N>>(cuda_of(context), cover.grid, cover.threads, 0,
                                          rows_of<T>(x), bias.row<const T>(0), columns,
                                          cover.parts);
    });
  });
}

void bias_backward(Context& context, Tensor d_bias, Tensor dy) {
  const int64_t T_rows = dy.rows(), columns = dy.row_size();
  if (T_rows == 0 || columns == 0) return;
  CudaContext& cuda = cuda_of(context);
  const RowBlocks blocks(T_rows);
  float* partials = cuda.scratch<float>(blocks.count * columns);
  with_dtype(dy.dtype, [&]<class T>(T*) {
    with_width<kVector<T>>(moves_16(dy), [&]<int N>(Width<N>) {
      const Cover cover(blocks.count, columns, N);
      simt::launch<bias_backward_kernel<T, N>>(cuda, cover.grid, cover.threads, 0, partials,
                                               rows_of<const T>(dy), T_rows, columns, blocks.rows,
                                               cover.parts);
    });
  });
  add_partials(cuda, d_bias.row<float>(0), partials, blocks.count, columns, columns);
}

}  // namespace simper::cuda
