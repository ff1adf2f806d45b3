// y = x · rstd · weight,  rstd = 1/sqrt(mean_c x² + eps)                 [Zhang & Sennrich 2019]
// With g = dy · weight:   dx = rstd·(g − x·rstd²·mean_c(g·x)),   d_weight += sum_t dy·x·rstd.
//
//              columns ──►
//            ┌───────────────┐   forward : one block per row; the row is read for its sum of
//            squares
//   rows     │ block 0       │             and read again, out of cache, to be scaled
//    │       ├───────────────┤   backward: one block for a few rows, one after the other; a thread
//    ▼       │ block 1       │             keeps its columns, so it alone adds their d_weight
//            └───────────────┘
//
// Bytes per row of C elements of s bytes: forward 2sC, with the residual add 4sC, backward 3sC,
// accumulating and with y again 5sC. A block of the backward leaves its sums of d_weight, 4C bytes
// for at least 8 rows, and a second kernel adds them block after block. How T is cut into blocks
// depends on T alone: d_weight has the same bits on every device.
#include "cuda/dispatch.h"
#include "cuda/partial_sums.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

constexpr unsigned kForwardThreads = 256, kBackwardThreads = 512;

// kAdd: sum = x + branch comes first, and x is what was stored of it: the backward reads the
// rounded sum too. y may be x, and sum may be x or branch: a thread reads and writes its own
// columns only.
template <class T, int N, bool kAdd>
SIMT_KERNEL(kForwardThreads)
rmsnorm_forward_kernel(Rows<T> y, Rows<T> sum, float* rstd, Rows<const T> x, Rows<const T> branch,
                       const T* weight, int64_t C, float eps) {
  SIMT_SHARED(memory);
  float* warp_sums = memory.take<float>(kForwardThreads / 32);
  const int64_t t = simt::block().x, begin = static_cast<int64_t>(simt::thread()) * N;
  const int64_t step = static_cast<int64_t>(simt::threads()) * N;
  const T* row = x[t];
  float squares = 0;
  for (int64_t c = begin; c < C; c += step) {
    float values[N];
    load_floats<N>(values, row + c);
    if constexpr (kAdd) {
      float added[N];
      load_floats<N>(added, branch[t] + c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        values[i] = simt::to_float(simt::from_float<T>(values[i] + added[i]));
      }
      store_floats<N>(sum[t] + c, values);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) squares += values[i] * values[i];
  }
  const float mean = simt::block_sum(squares, warp_sums) / static_cast<float>(C);
  const float scale = 1.0f / sqrtf(mean + eps);
  if (simt::thread() == 0) rstd[t] = scale;

  if constexpr (kAdd) row = sum[t];
  for (int64_t c = begin; c < C; c += step) {
    float values[N], w[N];
    load_floats<N>(values, row + c);
    load_floats<N>(w, weight + c);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = values[i] * scale * w[i];
    store_floats<N>(y[t] + c, values);
  }
}

// With kAdd dx accumulates, and y is what the forward wrote, to the bit. dx may be dy, or y may.
// The block's sums of d_weight stay in shared memory, or, where a row is too long, in `partials`.
template <class T, int N, bool kAdd>
SIMT_KERNEL(kBackwardThreads)
rmsnorm_backward_kernel(Rows<T> dx, Rows<T> y, float* partials, Rows<const T> dy, Rows<const T> x,
                        const T* weight, const float* rstd, int64_t T_rows, int64_t C,
                        int64_t rows_per_block, bool shared_sums) {
  SIMT_SHARED(memory);
  // Two sets, in turns: a warp may be a row ahead of one that still reads.
  constexpr int kWarps = kBackwardThreads / 32;
  float* warp_sums = memory.take<float>(2 * kWarps);
  float* partial = partials + simt::block().x * C;
  float* sums = partial;
  if (shared_sums) sums = memory.take<float>(static_cast<int>(C));

  const int64_t begin = static_cast<int64_t>(simt::thread()) * N;
  const int64_t step = static_cast<int64_t>(simt::threads()) * N;
  constexpr float kZeros[N] = {};
  for (int64_t c = begin; c < C; c += step) store_floats<N>(sums + c, kZeros);

  const int64_t first = simt::block().x * rows_per_block;
  const int64_t end = first + rows_per_block < T_rows ? first + rows_per_block : T_rows;
  for (int64_t t = first; t < end; ++t) {
    const T *dy_row = dy[t], *x_row = x[t];
    T* dx_row = dx[t];
    const float r = rstd[t];
    float dots = 0;
    for (int64_t c = begin; c < C; c += step) {
      float d[N], values[N], w[N];
      load_floats<N>(d, dy_row + c);
      load_floats<N>(values, x_row + c);
      load_floats<N>(w, weight + c);
#pragma unroll
      for (int i = 0; i < N; ++i) dots += d[i] * w[i] * values[i];
    }
    const float mean =
        simt::block_sum(dots, warp_sums + (t - first) % 2 * kWarps) / static_cast<float>(C);
    const float scale = r * r * mean;
    for (int64_t c = begin; c < C; c += step) {
      float d[N], values[N], w[N], sum[N];
      load_floats<N>(d, dy_row + c);
      load_floats<N>(values, x_row + c);
      load_floats<N>(w, weight + c);
      load_floats<N>(sum, sums + c);
      float result[N] = {};
      if constexpr (kAdd) load_floats<N>(result, dx_row + c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float unit = values[i] * r;
        sum[i] += d[i] * unit;
        const float gradient = (d[i] * w[i] - values[i] * scale) * r;
        result[i] = kAdd ? result[i] + gradient : gradient;
        values[i] = unit * w[i];
      }
      store_floats<N>(sums + c, sum);
      if constexpr (kAdd) store_floats<N>(y[t] + c, values);
      store_floats<N>(dx_row + c, result);
    }
  }
  if (!shared_sums) return;
  for (int64_t c = begin; c < C; c += step) {
    float sum[N];
    load_floats<N>(sum, sums + c);
    store_floats<N>(partial + c, sum);
  }
}

template <bool kAdd>
void forward(CudaContext& cuda, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor branch,
             Tensor weight, float eps) {
  const int64_t C = x.row_size();
  with_dtype(x.dtype, [&]<class T>(T*) {
    const bool wide = moves_16(y, sum, x, branch) && starts_at(weight, 16);
    with_width<kVector<T>>(wide, [&]<int N>(Width<N>) {
      const simt::Grid grid{static_cast<unsigned>(x.rows())};
      simt::launch<rmsnorm_forward_kernel<T, N, kAdd>>(
          cuda, grid, warps_for((C + N - 1) / N, kForwardThreads), 128, rows_of<T>(y),
          rows_of<T>(sum), rstd.row<float>(0), rows_of<const T>(x), rows_of<const T>(branch),
          weight.row<const T>(0), C, eps);
    });
  });
}

template <bool kAdd>
void backward(CudaContext& cuda, Tensor dx, Tensor y, Tensor d_weight, Tensor dy, Tensor x,
              Tensor weight, Tensor rstd) {
  const int64_t T_rows = x.rows(), C = x.row_size();
  if (T_rows == 0 || C == 0) return;
  const RowBlocks blocks(T_rows);
  constexpr int64_t kMostShared = 64
                                  << 10;  // of sums: C = 16384, and two blocks per multiprocessor
  const int64_t sum_bytes = (C * 4 + 127) / 128 * 128;
  const bool shared_sums = sum_bytes <= kMostShared;
  const auto shared_bytes = static_cast<size_t>(128 + (shared_sums ? sum_bytes : 0));
  float* partials = cuda.scratch<float>(blocks.count * C);
  with_dtype(x.dtype, [&]<class T>(T*) {
    const bool wide = moves_16(dx, y, dy, x) && starts_at(weight, 16);
    with_width<kVector<T>>(wide, [&]<int N>(Width<N>) {
      const simt::Grid grid{static_cast<unsigned>(blocks.count)};
      simt::launch<rmsnorm_backward_kernel<T, N, kAdd>>(
          cuda, grid, warps_for((C + N - 1) / N, kBackwardThreads), shared_bytes, rows_of<T>(dx),
          rows_of<T>(y), partials, rows_of<const T>(dy), rows_of<const T>(x),
          weight.row<const T>(0), rstd.row<const float>(0), T_rows, C, blocks.rows, shared_sums);
    });
  });
  add_partials(cuda, d_weight.row<float>(0), partials, blocks.count, C, C);
}

}  // namespace

void rmsnorm_forward(Context& context, Tensor y, Tensor rstd, Tensor x, Tensor weight, float eps) {
  forward<false>(cuda_of(context), y, y, rstd, x, x, weight, eps);
}

void add_rmsnorm_forward(Context& context, Tensor y, Tensor sum, Tensor rstd, Tensor x,
                         Tensor branch, Tensor weight, float eps) {
  forward<true>(cuda_of(context), y, sum, rstd, x, branch, weight, eps);
}

void rmsnorm_backward(Context& context, Tensor dx, Tensor d_weight, Tensor dy, Tensor x,
                      Tensor weight, Tensor rstd) {
  backward<false>(cuda_of(context), dx, dx, d_weight, dy, x, weight, rstd);
}

void rmsnorm_backward_add(Context& context, Tensor dx, Tensor y, Tensor d_weight, Tensor dy,
                          Tensor x, Tensor weight, Tensor rstd) {
  backward<true>(cuda_of(context), dx, y, d_weight, dy, x, weight, rstd);
}

}  // namespace simper::cuda
