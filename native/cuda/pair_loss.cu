// Losses on whole pairs. With l the mean of logp over the chosen (c) or rejected (r) response:
//   SimPER   −e^l_c + e^l_r                                          [Xiao et al. 2025, eq. 4]
//   sigmoid  −(1−s)·log σ(βz) − s·log σ(−βz),  z = l_c − l_r − γ     [Meng et al. 2024, eq. 6]
//   hinge    max(0, 1 − βz)
// and on top, for either response, −token_weight·sum of logp.
// One block per pair: two reductions, loss and coefficients in one launch, 8 bytes per scored row.
#include "cuda/dispatch.h"
#include "cuda/response.h"

namespace simper::cuda {

namespace {

struct Outputs {
  float *mean, *loss, *coefficient;
};

struct Inputs {
  const float* logp;
  const int32_t* responses;
  const float* token_weight;
};

// A pair's loss and its derivatives with respect to the two means.
struct Term {
  double chosen_loss, rejected_loss, d_chosen, d_rejected;
};

// Of log σ(x) and its derivative σ(−x) neither overflows, whatever x is.
SIMT_DEVICE double log_sigmoid(double x) {
  return fmin(x, 0.0) - log1p(exp(-fabs(x)));
}
SIMT_DEVICE double sigmoid(double x) {
  const double e = exp(-fabs(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

// The losses: what a pair is worth by the means of its responses. No mean: the response is empty.
struct SimperTerm {
  SIMT_DEVICE Term operator()(double chosen, double rejected, bool any_chosen,
                              bool any_rejected) const {
    const double p_chosen = any_chosen ? exp(chosen) : 0.0;
    const double p_rejected = any_rejected ? exp(rejected) : 0.0;
    return {-p_chosen, p_rejected, -p_chosen, p_rejected};
  }
};

struct SigmoidTerm {
  double beta, gamma_beta_ratio, label_smoothing;
  SIMT_DEVICE Term operator()(double chosen, double rejected, bool, bool) const {
    const double x = beta * (chosen - rejected - gamma_beta_ratio);
    const double right = 1 - label_smoothing, wrong = label_smoothing;
    const double value = -right * log_sigmoid(x) - wrong * log_sigmoid(-x);
    const double slope = beta * (wrong * sigmoid(x) - right * sigmoid(-x));
    return {value, 0, slope, -slope};
  }
};

struct HingeTerm {
  double beta, gamma_beta_ratio;
  SIMT_DEVICE Term operator()(double chosen, double rejected, bool, bool) const {
    const double value = 1 - beta * (chosen - rejected - gamma_beta_ratio);
    if (value <= 0) return {0, 0, 0, 0};
    const double slope = value > 0 ? -beta : value;  // NaN stays NaN
    return {value, 0, slope, -slope};
  }
};

template <class Function>
SIMT_KERNEL(kResponseThreads)
pair_loss_kernel(Outputs out, Inputs in, double scale, Function term, IndexCheck check) {
  SIMT_SHARED(memory);
  double* chosen_partials = memory.take<double>(kResponseThreads / 32);
  double* rejected_partials = memory.take<double>(kResponseThreads / 32);
  const int64_t r = 2 * static_cast<int64_t>(simt::block().x);
  Response chosen, rejected;
  if (!read_paired_response(chosen, check, in.responses, r)) return;
  if (!read_paired_response(rejected, check, in.responses, r + 1)) return;
  // Once the second sum is there, all of the pair's logp has been read and may be written over.
  const double sums[] = {sum_logp(chosen, in.logp, chosen_partials),
                         sum_logp(rejected, in.logp, rejected_partials)};
  const Response responses[] = {chosen, rejected};
  double means[2];
  for (int side = 0; side < 2; ++side) {
    const auto length = static_cast<double>(responses[side].length());
    means[side] = length > 0 ? sums[side] / length : 0.0;
  }
  const Term pair = term(means[0], means[1], chosen.length() > 0, rejected.length() > 0);
  const double losses[] = {pair.chosen_loss, pair.rejected_loss};
  const double derivatives[] = {pair.d_chosen, pair.d_rejected};
  for (int side = 0; side < 2; ++side) {
    const double weight = in.token_weight[r + side];
    if (simt::thread() == 0) {
      out.mean[r + side] = static_cast<float>(means[side]);
      out.loss[r + side] = static_cast<float>(scale * losses[side] - weight * sums[side]);
    }
    const Response& range = responses[side];
    const auto each = static_cast<float>(
        scale * derivatives[side] / static_cast<double>(range.length()) - weight);
    for (int64_t n = range.begin + simt::thread(); n < range.end; n += simt::threads()) {
      out.coefficient[n] = each;
    }
  }
}

template <class Function>
void pair_loss(Context& context, const char* op, Tensor mean, Tensor loss, Tensor coefficient,
               Tensor logp, Tensor responses, Tensor token_weight, double scale, Function term) {
  CudaContext& cuda = cuda_of(context);
  const IndexCheck check = check_pairs(cuda, op, logp.rows());
  const simt::Grid grid{static_cast<unsigned>(responses.rows() / 2)};
  const Outputs out{mean.row<float>(0), loss.row<float>(0), coefficient.row<float>(0)};
  const Inputs in{logp.row<const float>(0), responses.row<const int32_t>(0),
                  token_weight.row<const float>(0)};
  simt::launch<pair_loss_kernel<Function>>(cuda, grid, kResponseThreads, 2 * kResponseSharedBytes,
                                           out, in, scale, term, check);
}

}  // namespace

void simper_sft_loss(Context& context, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                     Tensor responses, Tensor token_weight, double scale) {
  pair_loss(context, "simper_sft_loss", mean, loss, coefficient, logp, responses, token_weight,
            scale, SimperTerm{});
}

void sigmoid_loss(Context& context, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                  Tensor responses, Tensor token_weight, double scale, double beta,
                  double gamma_beta_ratio, double label_smoothing) {
  pair_loss(context, "sigmoid_loss", mean, loss, coefficient, logp, responses, token_weight, scale,
            SigmoidTerm{beta, gamma_beta_ratio, label_smoothing});
}

void hinge_loss(Context& context, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                Tensor responses, Tensor token_weight, double scale, double beta,
                double gamma_beta_ratio) {
  pair_loss(context, "hinge_loss", mean, loss, coefficient, logp, responses, token_weight, scale,
            HingeTerm{beta, gamma_beta_ratio});
}

}  // namespace simper::cuda
