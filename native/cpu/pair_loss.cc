// Losses on whole pairs. With l the mean of logp over the chosen (c) or rejected (r) response:
//   SimPER   −e^l_c + e^l_r                                          [Xiao et al. 2025, eq. 4]
//   sigmoid  −(1−s)·log σ(βz) − s·log σ(−βz),  z = l_c − l_r − γ     [Meng et al. 2024, eq. 6]
//   hinge    max(0, 1 − βz)
// and on top, for either response, −token_weight·sum of logp.
#include <cmath>

#include "cpu/response.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

// A pair's loss and its derivatives with respect to the two means.
struct Term {
  double chosen_loss, rejected_loss, d_chosen, d_rejected;
};

// Of log σ(x) and its derivative σ(−x) neither overflows, whatever x is.
double log_sigmoid(double x) {
  return std::fmin(x, 0.0) - std::log1p(std::exp(-std::fabs(x)));
}
double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

// term(mean of chosen, mean of rejected, their lengths), pair by pair.
template <class Function>
void pair_loss(const char* op, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
               Tensor responses, Tensor token_weight, double scale, Function term) {
  check_pairs(op, responses, logp.rows());
  const float* logps = logp.row<float>(0);
  float* coefficients = coefficient.row<float>(0);
  for (int64_t chosen = 0; chosen < responses.rows(); chosen += 2) {
    Response ranges[2];
    double sums[2], means[2];
    for (int64_t side = 0; side < 2; ++side) {
      ranges[side] = response(responses, chosen + side);
      sums[side] = sum_logp(ranges[side], logps);
      const int64_t length = ranges[side].length();
      means[side] = length > 0 ? sums[side] / static_cast<double>(length) : 0.0;
    }
    const Term pair = term(means[0], means[1], ranges[0].length(), ranges[1].length());
    const double losses[] = {pair.chosen_loss, pair.rejected_loss};
    const double derivatives[] = {pair.d_chosen, pair.d_rejected};
    for (int64_t side = 0; side < 2; ++side) {
      const double weight = *token_weight.row<float>(chosen + side);
      *mean.row<float>(chosen + side) = static_cast<float>(means[side]);
      *loss.row<float>(chosen + side) =
          static_cast<float>(scale * losses[side] - weight * sums[side]);
      const Response& range = ranges[side];
      const double each = scale * derivatives[side] / static_cast<double>(range.length()) - weight;
      for (int64_t n = range.begin; n < range.end; ++n) coefficients[n] = static_cast<float>(each);
    }
  }
}

}  // namespace

void simper_sft_loss(Context&, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                     Tensor responses, Tensor token_weight, double scale) {
  pair_loss("simper_sft_loss", mean, loss, coefficient, logp, responses, token_weight, scale,
            [](double chosen, double rejected, int64_t chosen_length, int64_t rejected_length) {
              const double p_chosen = chosen_length > 0 ? std::exp(chosen) : 0.0;
              const double p_rejected = rejected_length > 0 ? std::exp(rejected) : 0.0;
              return Term{-p_chosen, p_rejected, -p_chosen, p_rejected};
            });
}

void sigmoid_loss(Context&, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                  Tensor responses, Tensor token_weight, double scale, double beta,
                  double gamma_beta_ratio, double label_smoothing) {
  pair_loss("sigmoid_loss", mean, loss, coefficient, logp, responses, token_weight, scale,
            [=](double chosen, double rejected, int64_t, int64_t) {
              const double x = beta * (chosen - rejected - gamma_beta_ratio);
              const double right = 1 - label_smoothing, wrong = label_smoothing;
              const double value = -right * log_sigmoid(x) - wrong * log_sigmoid(-x);
              const double slope = beta * (wrong * sigmoid(x) - right * sigmoid(-x));
              return Term{value, 0, slope, -slope};
            });
}

void hinge_loss(Context&, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                Tensor responses, Tensor token_weight, double scale, double beta,
                double gamma_beta_ratio) {
  pair_loss("hinge_loss", mean, loss, coefficient, logp, responses, token_weight, scale,
            [=](double chosen, double rejected, int64_t, int64_t) {
              const double value = 1 - beta * (chosen - rejected - gamma_beta_ratio);
              if (value <= 0) return Term{0, 0, 0, 0};
              const double slope = value > 0 ? -beta : value;  // NaN stays NaN
              return Term{value, 0, slope, -slope};
            });
}

}  // namespace simper::cpu
