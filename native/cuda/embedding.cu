// forward : y[t] = weight[tokens[t]]                                   4 or 8 bytes per element of
// y backward: d_weight[unique[u]] += sum of dy[r] over the rows r that the host lists for token u
//
// The backward has one writer for each row of d_weight and one order of its sum: a thread owns a
// few columns of one token and adds the token's rows as they are listed, four loads in flight. It
// reads dy once, and d_weight once and writes it, on the rows that occur. A kernel before it looks
// the lists over; for "each token once" every u claims its token, and the first u keeps it.
#include "cuda/check.h"
#include "cuda/dispatch.h"
#include "cuda/fault_text.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

template <class T, int N>
SIMT_KERNEL(256)
embedding_forward_kernel(Rows<T> y, const int32_t* tokens, Rows<const T> weight, int64_t columns,
                         unsigned parts, IndexCheck check) {
  const Piece at = piece<N>(parts);
  if (at.column >= columns) return;
  const int32_t token = tokens[at.row];
  if (!check_index(check, at.row, token)) return;
  simt::store_pack(y[at.row] + at.column, simt::load_pack<N>(weight[token] + at.column));
}

struct Lists {
  const int32_t *unique, *offsets, *rows;
  int64_t tokens, listed;  // sizes of unique and rows
};

constexpr int32_t kNobody = -1;

SIMT_KERNEL(256) clear_owners(int32_t* owner, int64_t V) {
  const int64_t v = static_cast<int64_t>(simt::block().x) * simt::threads() + simt::thread();
  if (v < V) owner[v] = kNobody;
}

// The smallest u that names the token owns it, whoever comes first.
SIMT_DEVICE void claim(int32_t* owner, int32_t u) {
  int32_t seen = kNobody;
  for (;;) {
    const int32_t found = simt::atomic_compare_exchange(owner, seen, u);
    if (found == seen || (found != kNobody && found < u)) return;
    seen = found;
  }
}

SIMT_KERNEL(256)
check_lists(int32_t* owner, Lists lists, IndexCheck unique, IndexCheck offsets, IndexCheck rows) {
  const int64_t i = static_cast<int64_t>(simt::block().x) * simt::threads() + simt::thread();
  if (i <= lists.tokens) {
    const int32_t offset = lists.offsets[i], last = i > 0 ? lists.offsets[i - 1] : 0;
    if (offset < last || offset > offsets.high) report(offsets, i, offset, last);
  }
  if (i < lists.listed) check_index(rows, i, lists.rows[i]);
  if (i < lists.tokens && check_index(unique, i, lists.unique[i])) {
    claim(owner + lists.unique[i], static_cast<int32_t>(i));
  }
}

template <class T, int N>
SIMT_KERNEL(128)
embedding_backward_kernel(Rows<float> d_weight, Rows<const T> dy, const int32_t* owner, Lists lists,
                          int64_t V, int64_t T_rows, int64_t columns, unsigned parts,
                          IndexCheck repeated) {
  const Piece at = piece<N>(parts);
  if (at.column >= columns) return;
  const int32_t token = lists.unique[at.row];
  if (token < 0 || token >= V) return;
  if (owner[token] != static_cast<int32_t>(at.row)) return report(repeated, at.row, token);
  const int32_t begin = lists.offsets[at.row], end = lists.offsets[at.row + 1];
  if (begin < 0 || end > lists.listed) return;

  float sums[N] = {};
  constexpr int kAtOnce = 4;
  for (int32_t i = begin; i < end; i += kAtOnce) {
    float values[kAtOnce][N];
    bool there[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int32_t row = i + k < end ? lists.rows[i + k] : -1;
      there[k] = row >= 0 && row < T_rows;
      if (there[k]) load_floats<N>(values[k], dy[row] + at.column);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
      for (int j = 0; j < N; ++j) sums[j] += there[k] ? values[k][j] : 0.0f;
    }
  }
  float* out = d_weight[token] + at.column;
  float total[N];
  load_floats<N>(total, out);
#pragma unroll
  for (int j = 0; j < N; ++j) total[j] += sums[j];
  store_floats<N>(out, total);
}

simt::Grid grid_for(int64_t work) {
  return {static_cast<unsigned>((work + 255) / 256)};
}

}  // namespace

void embedding_forward(Context& context, Tensor y, Tensor tokens, Tensor weight) {
  CudaContext& cuda = cuda_of(context);
  const IndexCheck check =
      cuda.check_indices("embedding_forward", "tokens", tokens, 0, weight.rows());
  const int64_t C = weight.row_size();
  with_dtype(weight.dtype, [&]<class T>(T*) {
    with_width<kVector<T>>(moves_16(y, weight), [&]<int N>(Width<N>) {
      const Cover cover(y.rows(), C, N);
      simt::launch<embedding_forward_kernel<T, N>>(cuda, cover.grid, cover.threads, 0,
                                                   rows_of<T>(y), tokens.row<const int32_t>(0),
                                                   rows_of<const T>(weight), C, cover.parts, check);
    });
  });
}

void embedding_backward(Context& context, Tensor d_weight, Tensor dy, Tensor unique, Tensor offsets,
                        Tensor rows) {
  CudaContext& cuda = cuda_of(context);
  constexpr const char* kOp = "embedding_backward";
  const int64_t V = d_weight.rows(), T_rows = dy.rows(), C = dy.row_size();
  const Lists lists{unique.row<const int32_t>(0), offsets.row<const int32_t>(0),
                    rows.row<const int32_t>(0), unique.rows(), rows.rows()};
  const IndexCheck unique_check = cuda.check_indices(kOp, "unique", unique, 0, V);
  const IndexCheck offsets_check = cuda.add_check({kOp, "offsets", 1, 0, rows.rows(), offset_text});
  const IndexCheck rows_check = cuda.check_indices(kOp, "rows", rows, 0, T_rows);
  const IndexCheck repeated = cuda.add_check({kOp, "unique", 1, 0, V, repeated_text});

  int32_t* owner = cuda.scratch<int32_t>(V);
  simt::launch<clear_owners>(cuda, grid_for(V), 256, 0, owner, V);
  simt::launch<check_lists>(cuda, grid_for(std::max(unique.rows() + 1, rows.rows())), 256, 0, owner,
                            lists, unique_check, offsets_check, rows_check);
  with_dtype(dy.dtype, [&]<class T>(T*) {
    // Four columns of f32 sums per thread: more threads for the few tokens that occur often.
    const bool wide = moves_16(d_weight) && moves(dy, 4 * sizeof(T));
    with_width<4>(wide, [&]<int N>(Width<N>) {
      const Cover cover(unique.rows(), C, N, 128);
      simt::launch<embedding_backward_kernel<T, N>>(
          cuda, cover.grid, cover.threads, 0, rows_of<float>(d_weight), rows_of<const T>(dy), owner,
          lists, V, T_rows, C, cover.parts, repeated);
    });
  });
}

}  // namespace simper::cuda
