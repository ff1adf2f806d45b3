// Next-token loss: loss = −scale·sum of logp over a response, so d loss / d logp[n] = −scale.
#include "cpu/response.h"
#include "ops/ops.h"

namespace simper::cpu {

void sft_loss(Context&, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp, Tensor responses,
              float scale) {
  check_responses("sft_loss", responses, logp.rows());
  const float* logps = logp.row<float>(0);
  float* coefficients = coefficient.row<float>(0);
  for (int64_t r = 0; r < responses.rows(); ++r) {
    const Response range = response(responses, r);
    const double length = static_cast<double>(range.length());
    const double total = sum_logp(range, logps);
    *mean.row<float>(r) = static_cast<float>(length > 0 ? total / length : 0.0);
    *loss.row<float>(r) = static_cast<float>(length > 0 ? -scale * total : 0.0);
    for (int64_t n = range.begin; n < range.end; ++n) coefficients[n] = -scale;
  }
}

}  // namespace simper::cpu
