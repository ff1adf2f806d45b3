// The global gradient norm, in two steps so that ranks can add their partial sums in between:
//   partials[b] = sum of x² over block b;   norm = sqrt(sum of partials), factor = min(1,
//   max_norm/(norm + 1e-6)).
#include <cmath>

#include "cpu/parallel.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

constexpr int64_t kSums = 16;  // independent f64 sums, added in order at the end

double square_sum(const float* x, int64_t n) {
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int64_t lane = 0; lane < kSums; ++lane) {
      const double value = x[i + lane];
      sums[lane] += value * value;
    }
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(x[i]) * x[i];
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

void sum_squares(Context&, Tensor partials, Tensor x) {
  const int64_t n = x.rows(), B = partials.rows();
  const int64_t block = (n + B - 1) / B;
  const float* values = x.row<float>(0);
  parallel_rows(B, block * 4, [&](int64_t b) {
    const int64_t begin = std::min(b * block, n), end = std::min(begin + block, n);
    *partials.row<float>(b) = static_cast<float>(square_sum(values + begin, end - begin));
  });
}

void clip_factor(Context&, Tensor out, Tensor partials, float max_norm) {
  double total = 0;
  for (int64_t b = 0; b < partials.rows(); ++b) total += *partials.row<float>(b);
  const double norm = std::sqrt(total);
  const double factor = max_norm / (norm + 1e-6);
  *out.row<float>(0) = static_cast<float>(norm);
  // Written so that a NaN norm gives a NaN factor.
  *out.row<float>(1) = max_norm == 0 || factor >= 1 ? 1.0f : static_cast<float>(factor);
}

}  // namespace simper::cpu
