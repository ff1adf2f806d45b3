// lse[n] = log sum_v e^logits[n][v],   logp[n] = logits[n][label] − lse[n]
// d_logits[n] = coefficient[n]·(onehot(label) − softmax(logits[n]))
//
// The forward reads logits once: a chunk of a row gives its maximum and its sum of e^(x − maximum)
// while it is in cache, and the chunks of a row are then added in order. Chunks do not depend on
// the number of threads.
#include <cmath>
#include <limits>

#include "cpu/check.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

constexpr int64_t kChunk = 4096;  // floats: 16 KiB, half of the smallest first-level cache
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Part {
  float max, sum;  // sum of e^(x − max)
};

// −inf − −inf would be NaN; an empty maximum shifts by nothing.
template <class Float>
Float shift_of(Float max) {
  return max == -std::numeric_limits<Float>::infinity() ? Float(0) : max;
}

// A NaN may escape the maximum but not the sum.
Part reduce(const float* logits, int64_t n) {
  Vec best = splat(-kInfinity);
  for_lanes(n, [&](int64_t v, int64_t k) { best = max(load(logits + v, k, -kInfinity), best); });
  const float m = max(best), shift = shift_of(m);
  Vec sums{};
  for_lanes(n, [&](int64_t v, int64_t k) { sums += exp(load(logits + v, k, -kInfinity) - shift); });
  return {m, sum(sums)};
}

// f(n, begin, end) over the chunks of every row.
template <class F>
void parallel_chunks(int64_t N, int64_t V, int64_t chunk, F&& f) {
  const int64_t chunks = (V + chunk - 1) / chunk;
  parallel_rows(N * chunks, std::min(chunk, V) * 8, [&](int64_t i) {
    const int64_t n = i / chunks, begin = i % chunks * chunk;
    f(n, begin, std::min(begin + chunk, V));
  });
}

}  // namespace

void logprob_forward(Context&, Tensor logp, Tensor lse, Tensor logits, Tensor labels) {
  const int64_t N = logits.rows(), V = logits.row_size(), chunks = (V + kChunk - 1) / kChunk;
  check_indices("logprob_forward", "labels", labels, -1, V);
  Part* parts = scratch<Part>(N * chunks);
  parallel_chunks(N, V, kChunk, [&](int64_t n, int64_t begin, int64_t end) {
    parts[n * chunks + begin / kChunk] = reduce(logits.row<float>(n) + begin, end - begin);
  });
  parallel_rows(N, chunks * 64, [&](int64_t n) {
    const Part* part = parts + n * chunks;
    double max = -std::numeric_limits<double>::infinity(), total = 0;
    for (int64_t i = 0; i < chunks; ++i) max = std::max<double>(max, part[i].max);
    for (int64_t i = 0; i < chunks; ++i) {
      total += part[i].sum * std::exp(shift_of(part[i].max) - shift_of(max));
    }
    const double log_total = std::log(total);
    const int32_t label = *labels.row<int32_t>(n);
    *lse.row<float>(n) = static_cast<float>(shift_of(max) + log_total);
    // Before lse is rounded: at logits of 1e4 its last place is 1e-3.
    *logp.row<float>(n) =
        label < 0 ? 0.0f
                  : static_cast<float>(logits.row<float>(n)[label] - shift_of(max) - log_total);
  });
}

void logprob_backward(Context&, Tensor d_logits, Tensor logits, Tensor lse, Tensor labels,
                      Tensor coefficient) {
  const int64_t N = logits.rows(), V = logits.row_size();
  check_indices("logprob_backward", "labels", labels, -1, V);
  // A bf16 row over its f32 row: element v is written at byte 2v and read at 4v, so one thread goes
  // front to back and never writes what is still to be read.
  const bool narrows = d_logits.data == logits.data && d_logits.dtype != DType::f32;
  with_dtype(d_logits.dtype, [&]<class T>(T*) {
    parallel_chunks(N, V, narrows ? std::max<int64_t>(V, 1) : kChunk,
                    [&](int64_t n, int64_t begin, int64_t end) {
                      const float* in = logits.row<float>(n) + begin;
                      T* out = d_logits.row<T>(n) + begin;
                      const int64_t label = *labels.row<int32_t>(n) - begin;
                      if (label + begin < 0) {
                        for_lanes(end - begin,
                                  [&](int64_t v, int64_t k) { store(out + v, Vec{}, k); });
                        return;
                      }
                      const float c = *coefficient.row<float>(n), row_lse = *lse.row<float>(n);
                      const bool has_label = label >= 0 && label < end - begin;
                      // 1 − p in f32, before rounding to T; read now, for `out` may lie over it.
                      const Vec p_label = exp(splat((has_label ? in[label] : 0.0f) - row_lse));
                      for_lanes(end - begin, [&](int64_t v, int64_t k) {
                        store(out + v, exp(load(in + v, k) - row_lse) * -c, k);
                      });
                      if (has_label) store(out + label, c * (1.0f - p_label), 1);
                    });
  });
}

}  // namespace simper::cpu
