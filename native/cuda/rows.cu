// Rows to and from the LM head, which runs on the scored rows only.
//   gather : y[n]  = x[rows[n]]                            zeros where rows[n] = -1
//   scatter: dx[t] = dy[sources[t][0]] + dy[sources[t][1]]  its transpose, by the host-built
//   inverse
//            list: a row is the source of at most two responses, so dx is written once and in a
//            fixed order.
// A thread moves 16 bytes of a row: each row is read and written once.
#include "cuda/check.h"
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

template <class T, int N>
SIMT_KERNEL(256)
gather_rows_kernel(Rows<T> y, Rows<const T> x, const int32_t* rows, int64_t columns, unsigned parts,
                   IndexCheck check) {
  const Piece at = piece<N>(parts);
  if (at.column >= columns) return;
  const int32_t source = rows[at.row];
  if (!check_index(check, at.row, source)) return;
  simt::Pack<T, N> pack{};
  if (source >= 0) pack = simt::load_pack<N>(x[source] + at.column);
  simt::store_pack(y[at.row] + at.column, pack);
}

template <class T, int N>
SIMT_KERNEL(256)
scatter_rows_kernel(Rows<T> dx, Rows<const T> dy, const int32_t* sources, int64_t columns,
                    unsigned parts, IndexCheck check) {
  const Piece at = piece<N>(parts);
  if (at.column >= columns) return;
  const int32_t first = sources[2 * at.row], second = sources[2 * at.row + 1];
  if (!check_index(check, 2 * at.row, first) || !check_index(check, 2 * at.row + 1, second)) return;
  float sum[N] = {};
  if (first >= 0) load_floats<N>(sum, dy[first] + at.column);
  if (second >= 0) {
    float other[N];
    load_floats<N>(other, dy[second] + at.column);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] = first >= 0 ? sum[i] + other[i] : other[i];
  }
  store_floats<N>(dx[at.row] + at.column, sum);
}

}  // namespace

void gather_rows(Context& context, Tensor y, Tensor x, Tensor rows) {
  CudaContext& cuda = cuda_of(context);
  const IndexCheck check = cuda.check_indices("gather_rows", "rows", rows, -1, x.rows());
  const int64_t C = x.row_size();
  with_dtype(x.dtype, [&]<class T>(T*) {
    with_width<kVector<T>>(moves_16(y, x), [&]<int N>(Width<N>) {
      const Cover cover(y.rows(), C, N);
      simt::launch<gather_rows_kernel<T, N>>(cuda, cover.grid, cover.threads, 0, rows_of<T>(y),
                                             rows_of<const T>(x), rows.row<const int32_t>(0), C,
                                             cover.parts, check);
    });
  });
}

void scatter_rows(Context& context, Tensor dx, Tensor dy, Tensor sources) {
  CudaContext& cuda = cuda_of(context);
  const IndexCheck check = cuda.check_indices("scatter_rows", "sources", sources, -1, dy.rows());
  const int64_t C = dx.row_size();
  with_dtype(dx.dtype, [&]<class T>(T*) {
    with_width<kVector<T>>(moves_16(dx, dy), [&]<int N>(Width<N>) {
      const Cover cover(dx.rows(), C, N);
      simt::launch<scatter_rows_kernel<T, N>>(cuda, cover.grid, cover.threads, 0, rows_of<T>(dx),
                                              rows_of<const T>(dy), sources.row<const int32_t>(0),
                                              C, cover.parts, check);
    });
  });
}

}  // namespace simper::cuda
