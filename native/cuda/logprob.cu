// lse[n] = log sum_v e^logits[n][v],   logp[n] = logits[n][label] − lse[n]
// d_logits[n] = coefficient[n]·(onehot(label) − softmax(logits[n]))
//
// One block per row, front to back in chunks of 16 elements per thread. The forward reads logits
// once, 4 bytes per element: each thread keeps the maximum so far and its sum of e^(x − maximum),
// and rescales the sum when the maximum moves [Milakov & Gimelshein 2018]. The backward reads and
// writes, 6 bytes per element with bf16 gradients. Both are bound by memory: about 5 instructions
// per element.
#include <limits>

#include "cuda/check.h"
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda {

namespace {

constexpr unsigned kThreads = 512;
constexpr int kInFlight = 16;  // elements of a thread per chunk
constexpr float kLog2e = 1.44269504089f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Difference first: a multiple of a logit of 1e4 would have lost what follows the point.
SIMT_DEVICE float exp_of(float difference) {
  return simt::exp2_fast(difference * kLog2e);
}

// −inf − −inf would be NaN; an empty maximum shifts by nothing.
SIMT_DEVICE float shift_of(float max) {
  return max == -kInfinity ? 0.0f : max;
}

// Elements [begin, begin + 16·threads) of a row, N neighbouring ones at a time; `rest` past its
// end.
template <int N>
struct Chunk {
  static constexpr int kPieces = kInFlight / N;
  float values[kPieces][N];

  static SIMT_DEVICE int64_t size() { return static_cast<int64_t>(simt::threads()) * kInFlight; }
  static SIMT_DEVICE int64_t column(int64_t begin, int piece) {
    return begin + (static_cast<int64_t>(piece) * simt::threads() + simt::thread()) * N;
  }
  SIMT_DEVICE void load(const float* row, int64_t begin, int64_t V, float rest) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int64_t c = column(begin, p);
      if (c < V) {
        load_floats<N>(values[p], row + c);
      } else {
#pragma unroll
        for (int i = 0; i < N; ++i) values[p][i] = rest;
      }
    }
  }
};

// A NaN may escape the maximum but not the sum.
template <int N>
SIMT_KERNEL(kThreads)
logprob_forward_kernel(float* logp, float* lse, Rows<const float> logits, const int32_t* labels,
                       int64_t V, IndexCheck check) {
  SIMT_SHARED(memory);
  float* maxima = memory.take<float>(kThreads / 32);
  float* sums = memory.take<float>(kThreads / 32);
  const int64_t n = simt::block().x;
  const float* row = logits[n];

  float max = -kInfinity, sum = 0;
  for (int64_t begin = 0; begin < V; begin += Chunk<N>::size()) {
    Chunk<N> chunk;
    chunk.load(row, begin, V, -kInfinity);
    float best = max;
#pragma unroll
    for (auto& piece : chunk.values) {
#pragma unroll
      for (const float x : piece) best = fmaxf(best, x);
    }
    const float shift = shift_of(best);
    sum *= exp_of(max - shift);
#pragma unroll
    for (auto& piece : chunk.values) {
#pragma unroll
      for (const float x : piece) sum += exp_of(x - shift);
    }
    max = best;
  }

  const float warp_max = simt::warp_max(max);
  const float warp_sum = simt::warp_sum(sum * exp_of(max - shift_of(warp_max)));
  if (simt::lane() == 0) {
    maxima[simt::warp()] = warp_max;
    sums[simt::warp()] = warp_sum;
  }
  simt::barrier();
  if (simt::thread() > 0) return;
  const unsigned warps = simt::threads() / 32;
  for (unsigned w = 0; w < warps; ++w) max = fmaxf(max, maxima[w]);
  const float shift = shift_of(max);
  double total = 0;
  for (unsigned w = 0; w < warps; ++w) total += sums[w] * exp_of(maxima[w] - shift);
  const double log_total = log(total);
  const int32_t label = labels[n];
  lse[n] = static_cast<float>(shift + log_total);
  // Before lse is rounded: at logits of 1e4 its last place is 1e-3.
  const bool has_label = check_index(check, n, label) && label >= 0;
  logp[n] =
      has_label ? static_cast<float>(static_cast<double>(row[label]) - shift - log_total) : 0.0f;
}

// kNarrows: a bf16 row lies over its f32 row, so element v is written at byte 2v and read at 4v.
// What a chunk writes lies before its end, and every thread has read the chunk before one writes.
template <class T, int N, bool kNarrows>
SIMT_KERNEL(kThreads)
logprob_backward_kernel(Rows<T> d_logits, Rows<const float> logits, const float* lse,
                        const int32_t* labels, const float* coefficient, int64_t V,
                        IndexCheck check) {
  const int64_t n = simt::block().x;
  const int32_t label = labels[n];
  if (!check_index(check, n, label)) return;
  const float* row = logits[n];
  T* out = d_logits[n];
  const float c = coefficient[n], row_lse = lse[n];
  Chunk<N> chunk;
  for (int64_t begin = 0; begin < V; begin += Chunk<N>::size()) {
    if (label >= 0) {
      chunk.load(row, begin, V, 0.0f);
      if constexpr (kNarrows) simt::barrier();
    }
#pragma unroll
    for (int p = 0; p < Chunk<N>::kPieces; ++p) {
      const int64_t column = Chunk<N>::column(begin, p);
      if (column >= V) break;
      float d[N] = {};
      if (label >= 0) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float probability = exp_of(chunk.values[p][i] - row_lse);
          // 1 − p in f32, before rounding to T.
          d[i] = column + i == label ? c * (1.0f - probability) : probability * -c;
        }
      }
      store_floats<N>(out + column, d);
    }
  }
}

unsigned threads_for(int64_t V) {
  return warps_for((V + kInFlight - 1) / kInFlight, kThreads);
}

}  // namespace

void logprob_forward(Context& context, Tensor logp, Tensor lse, Tensor logits, Tensor labels) {
  CudaContext& cuda = cuda_of(context);
  const int64_t V = logits.row_size();
  const IndexCheck check = cuda.check_indices("logprob_forward", "labels", labels, -1, V);
  with_width<4>(moves_16(logits), [&]<int N>(Width<N>) {
    const simt::Grid grid{static_cast<unsigned>(logits.rows())};
    simt::launch<logprob_forward_kernel<N>>(cuda, grid, threads_for(V), 2 * 128, logp.row<float>(0),
                                            lse.row<float>(0), rows_of<const float>(logits),
                                            labels.row<const int32_t>(0), V, check);
  });
}

void logprob_backward(Context& context, Tensor d_logits, Tensor logits, Tensor lse, Tensor labels,
                      Tensor coefficient) {
  CudaContext& cuda = cuda_of(context);
  const int64_t V = logits.row_size();
  const IndexCheck check = cuda.check_indices("logprob_backward", "labels", labels, -1, V);
  with_dtype(d_logits.dtype, [&]<class T>(T*) {
    const bool wide = moves_16(logits) && moves(d_logits, 4 * sizeof(T));
    with_width<4>(wide, [&]<int N>(Width<N>) {
      const auto launch = [&]<bool kNarrows>(std::bool_constant<kNarrows>) {
        const simt::Grid grid{static_cast<unsigned>(logits.rows())};
        simt::launch<logprob_backward_kernel<T, N, kNarrows>>(
            cuda, grid, threads_for(V), 0, rows_of<T>(d_logits), rows_of<const float>(logits),
            lse.row<const float>(0), labels.row<const int32_t>(0), coefficient.row<const float>(0),
            V, check);
      };
      if constexpr (sizeof(T) < sizeof(float)) {
        if (d_logits.data == logits.data) return launch(std::true_type{});
      }
      launch(std::false_type{});
    });
  });
}

}  // namespace simper::cuda
