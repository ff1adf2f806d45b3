// SimPER [Xiao et al. 2025, eq. 4]: mean = mean of logp over a response, p = e^mean, its inverse
// perplexity;
//   loss = −scale·p for the chosen, +scale·p for the rejected response, so d loss / d logp[n] =
//   loss / length.
// One block per response: reduction, loss and coefficient in one launch, 8 bytes per scored row.
#include "cuda/dispatch.h"
#include "cuda/response.h"

namespace simper::cuda {

namespace {

SIMT_KERNEL(kResponseThreads)
simper_loss_kernel(float* mean, float* loss, float* coefficient, const float* logp,
                   const int32_t* responses, float scale, IndexCheck check) {
  SIMT_SHARED(memory);
  double* partials = memory.take<double>(kResponseThreads / 32);
  const int64_t r = simt::block().x;
  Response response;
  if (!read_response(response, check, responses, r)) return;
  const auto length = static_cast<double>(response.length());
  const double total = sum_logp(response, logp, partials);
  const double mean_logp = length > 0 ? total / length : 0.0;
  const double signed_scale = response.rejected ? scale : -scale;
  const double value = length > 0 ? signed_scale * exp(mean_logp) : 0.0;
  if (simt::thread() == 0) {
    mean[r] = static_cast<float>(mean_logp);
    loss[r] = static_cast<float>(value);
  }
  const auto each = static_cast<float>(value / length);
  for (int64_t n = response.begin + simt::thread(); n < response.end; n += simt::threads()) {
    coefficient[n] = each;
  }
}

}  // namespace

void simper_loss(Context& context, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
                 Tensor responses, float scale) {
  CudaContext& cuda = cuda_of(context);
  const IndexCheck check = check_responses(cuda, "simper_loss", logp.rows());
  const simt::Grid grid{static_cast<unsigned>(responses.rows())};
  simt::launch<simper_loss_kernel>(cuda, grid, kResponseThreads, kResponseSharedBytes,
                                   mean.row<float>(0), loss.row<float>(0),
                                   coefficient.row<float>(0), logp.row<const float>(0),
                                   responses.row<const int32_t>(0), scale, check);
}

}  // namespace simper::cuda
