// RMSNorm of each q and k head over its D columns [Yang et al. 2025]; the formulas are those of
// rmsnorm.cu, with C = D. q heads share q_weight and k heads k_weight; the v heads are copied.
//
//            q heads │ k │ v     A warp has one head of one row: it reads it for its sum and again,
//   rows   ┌─┬─┬─┬─┬─┼─┬─┼─┬─┐   out of cache, to write it. A lane has 4 neighbouring columns at a
//    │     │w│w│w│w│w│w│w│w│w│   time, all of a head of 128, or one where these are not aligned.
//    ▼     └─┴─┴─┴─┴─┴─┴─┴─┴─┘   Backward: a block has a few rows, whose heads go to its warps in
//                                turns; each warp keeps its sums of both d_weight.
//
// Bytes per element of s bytes: forward 2s, backward 3s, and 8·D bytes of partial sums per block of
// at least 8 rows, which a second kernel adds (partial_sums.h). Which warp has which head depends
// on shapes alone: the gradients have the same bits on every device.
#include "cuda/dispatch.h"
#include "cuda/partial_sums.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

constexpr int kWarps = 8, kPiece = 4;  // warps of a block, columns of a lane

// A row {queries q heads, keys k heads, keys v heads} of D columns each.
struct QkvHeads {
  int queries, keys, D;

  SIMT_DEVICE int all() const { return queries + 2 * keys; }
  SIMT_DEVICE bool is_query(int head) const { return head < queries; }
  SIMT_DEVICE bool is_value(int head) const { return head >= queries + keys; }
};

// By one warp.
template <class T, int N>
SIMT_DEVICE void copy_head(T* to, const T* from, int D) {
  for (int c = simt::lane() * N; c < D; c += 32 * N) {
    float values[N];
    load_floats<N>(values, from + c);
    store_floats<N>(to + c, values);
  }
}

// y may be x: a lane reads and writes its own columns only.
template <class T, int N>
SIMT_KERNEL(32 * kWarps)
qk_norm_forward_kernel(Rows<T> y, Rows<float> rstd, Rows<const T> x, const T* q_weight,
                       const T* k_weight, QkvHeads heads, unsigned parts, float eps) {
  const int64_t t = simt::block().x / parts;
  const int head = static_cast<int>(simt::block().x % parts) * kWarps + simt::warp(), D = heads.D;
  if (head >= heads.all()) return;
  const T* from = x[t] + static_cast<int64_t>(head) * D;
  T* to = y[t] + static_cast<int64_t>(head) * D;
  if (heads.is_value(head)) return copy_head<T, N>(to, from, D);

  float squares = 0;
  for (int c = simt::lane() * N; c < D; c += 32 * N) {
    float values[N];
    load_floats<N>(values, from + c);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += values[i] * values[i];
  }
  const float scale = 1.0f / sqrtf(simt::warp_sum(squares) / static_cast<float>(D) + eps);
  if (simt::lane() == 0) rstd[t][head] = scale;
  const T* weight = heads.is_query(head) ? q_weight : k_weight;
  for (int c = simt::lane() * N; c < D; c += 32 * N) {
    float values[N], w[N];
    load_floats<N>(values, from + c);
    load_floats<N>(w, weight + c);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = values[i] * scale * w[i];
    store_floats<N>(to + c, values);
  }
}

// dx may be dy. A warp's sums {d_q_weight, d_k_weight} stay in shared memory, or, where a head is
// too long, in `warp_partials`.
template <class T, int N>
SIMT_KERNEL(32 * kWarps)
qk_norm_backward_kernel(Rows<T> dx, float* partials, float* warp_partials, Rows<const T> dy,
                        Rows<const T> x, const T* q_weight, const T* k_weight,
                        Rows<const float> rstd, int64_t T_rows, QkvHeads heads,
                        int64_t rows_per_block, bool shared_sums) {
  SIMT_SHARED(memory);
  const int D = heads.D, block_sums = kWarps * 2 * D;
  float* all_sums = warp_partials + static_cast<int64_t>(simt::block().x) * block_sums;
  if (shared_sums) all_sums = memory.take<float>(block_sums);
  float* sums = all_sums + simt::warp() * 2 * D;
  for (int c = simt::lane() * N; c < D; c += 32 * N) {
#pragma unroll
    for (int i = 0; i < N; ++i) sums[c + i] = sums[D + c + i] = 0.0f;
  }

  const int64_t first = simt::block().x * rows_per_block;
  const int64_t rows = rows_per_block < T_rows - first ? rows_per_block : T_rows - first;
  const int all = heads.all();
  for (int unit = simt::warp(); unit < static_cast<int>(rows) * all; unit += kWarps) {
    const int64_t t = first + unit / all;
    const int head = unit % all;
    const int64_t column = static_cast<int64_t>(head) * D;
    const T *dy_head = dy[t] + column, *x_head = x[t] + column;
    T* dx_head = dx[t] + column;
    if (heads.is_value(head)) {
      copy_head<T, N>(dx_head, dy_head, D);
      continue;
    }
    const T* weight = heads.is_query(head) ? q_weight : k_weight;
    float* d_weight = heads.is_query(head) ? sums : sums + D;
    const float r = rstd[t][head];
    float dots = 0;
    for (int c = simt::lane() * N; c < D; c += 32 * N) {
      float d[N], values[N], w[N];
      load_floats<N>(d, dy_head + c);
      load_floats<N>(values, x_head + c);
      load_floats<N>(w, weight + c);
#pragma unroll
      for (int i = 0; i < N; ++i) dots += d[i] * w[i] * values[i];
    }
    const float scale = r * r * (simt::warp_sum(dots) / static_cast<float>(D));
    for (int c = simt::lane() * N; c < D; c += 32 * N) {
      float d[N], values[N], w[N];
      load_floats<N>(d, dy_head + c);
      load_floats<N>(values, x_head + c);
      load_floats<N>(w, weight + c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        d_weight[c + i] += d[i] * (values[i] * r);
        d[i] = (d[i] * w[i] - values[i] * scale) * r;
      }
      store_floats<N>(dx_head + c, d);
    }
  }

  simt::barrier();  // the sums of all warps are whole
  for (int c = static_cast<int>(simt::thread()); c < 2 * D; c += 32 * kWarps) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += all_sums[w * 2 * D + c];
    partials[simt::block().x * 2 * D + c] = total;
  }
}

QkvHeads heads_of(const Tensor& weight, int64_t heads, int64_t kv_heads) {
  return {static_cast<int>(heads), static_cast<int>(kv_heads), static_cast<int>(weight.rows())};
}

// Whether a lane's columns move at once, in every head of these rows and weights.
template <class T, class... Tensors>
bool moves_pieces(int64_t D, const Tensors&... tensors) {
  constexpr int64_t kBytes = kPiece * static_cast<int64_t>(sizeof(T));
  return D % kPiece == 0 &&
         ((starts_at(tensors, kBytes) && tensors.row_stride % kPiece == 0) && ...);
}

}  // namespace

void qk_norm_forward(Context& context, Tensor y, Tensor rstd, Tensor x, Tensor q_weight,
                     Tensor k_weight, int64_t heads, int64_t kv_heads, float eps) {
  const QkvHeads shape = heads_of(q_weight, heads, kv_heads);
  // Blocks of a row.
  const auto parts = static_cast<unsigned>((heads + 2 * kv_heads + kWarps - 1) / kWarps);
  with_dtype(x.dtype, [&]<class T>(T*) {
    constexpr int64_t kBytes = kPiece * static_cast<int64_t>(sizeof(T));
    const bool wide = moves_pieces<T>(shape.D, x, y) && starts_at(q_weight, kBytes) &&
                      starts_at(k_weight, kBytes);
    with_width<kPiece>(wide, [&]<int N>(Width<N>) {
      const simt::Grid grid{static_cast<unsigned>(x.rows()) * parts};
      simt::launch<qk_norm_forward_kernel<T, N>>(cuda_of(context), grid, 32 * kWarps, 0,
                                                 rows_of<T>(y), rows_of<float>(rstd),
                                                 rows_of<const T>(x), q_weight.row<const T>(0),
                                                 k_weight.row<const T>(0), shape, parts, eps);
    });
  });
}

void qk_norm_backward(Context& context, Tensor dx, Tensor d_q_weight, Tensor d_k_weight, Tensor dy,
                      Tensor x, Tensor q_weight, Tensor k_weight, Tensor rstd, int64_t heads,
                      int64_t kv_heads) {
  const int64_t T_rows = x.rows(), D = q_weight.rows();
  if (T_rows == 0) return;
  CudaContext& cuda = cuda_of(context);
  const QkvHeads shape = heads_of(q_weight, heads, kv_heads);
  const RowBlocks blocks(T_rows);
  constexpr int64_t kMostShared = 48 << 10;  // of sums: D = 768
  const int64_t block_bytes = kWarps * 2 * D * 4;
  const bool shared_sums = block_bytes <= kMostShared;
  float* partials = cuda.scratch<float>(blocks.count * 2 * D, 0);
  float* warp_partials =
      shared_sums ? nullptr : cuda.scratch<float>(blocks.count * kWarps * 2 * D, 1);
  with_dtype(x.dtype, [&]<class T>(T*) {
    constexpr int64_t kBytes = kPiece * static_cast<int64_t>(sizeof(T));
    const bool wide =
        moves_pieces<T>(D, dx, dy, x) && starts_at(q_weight, kBytes) && starts_at(k_weight, kBytes);
    with_width<kPiece>(wide, [&]<int N>(Width<N>) {
      const simt::Grid grid{static_cast<unsigned>(blocks.count)};
      simt::launch<qk_norm_backward_kernel<T, N>>(
          cuda, grid, 32 * kWarps, shared_sums ? static_cast<size_t>(block_bytes) : 0,
          rows_of<T>(dx), partials, warp_partials, rows_of<const T>(dy), rows_of<const T>(x),
          q_weight.row<const T>(0), k_weight.row<const T>(0), rows_of<const float>(rstd), T_rows,
          shape, blocks.rows, shared_sums);
    });
  });
  add_partials(cuda, d_q_weight.row<float>(0), partials, blocks.count, 2 * D, D);
  add_partials(cuda, d_k_weight.row<float>(0), partials + D, blocks.count, 2 * D, D);
}

}  // namespace simper::cuda
