// SimPER [Xiao et al. 2025, eq. 4]: mean = mean of logp over a response, p = e^mean, its inverse
// perplexity;
//   loss = −scale·p for the chosen, +scale·p for the rejected response, so d loss / d logp[n] =
//   loss / length.
#include <cmath>

#include "cpu/response.h"
#include "ops/ops.h"

namespace simper::cpu {

void simper_loss(Context&, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                 Tensor responses, float scale) {
  check_responses("simper_loss", responses, logp.rows());
  const float* logps = logp.row<float>(0);
  float* coefficients = coefficient.row<float>(0);
  for (int64_t r = 0; r < responses.rows(); ++r) {
    const Response range = response(responses, r);
    const double length = static_cast<double>(range.length());
    const double mean_logp = length > 0 ? sum_logp(range, logps) / length : 0.0;
    const double signed_scale = range.rejected ? scale : -scale;
    const double value = length > 0 ? signed_scale * std::exp(mean_logp) : 0.0;
    *mean.row<float>(r) = static_cast<float>(mean_logp);
    *loss.row<float>(r) = static_cast<float>(value);
    for (int64_t n = range.begin; n < range.end; ++n) {
      coefficients[n] = static_cast<float>(value / length);
    }
  }
}

}  // namespace simper::cpu
