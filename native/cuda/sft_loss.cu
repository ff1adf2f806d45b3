// Next-token loss: loss = −scale·sum of logp over a response, so d loss / d logp[n] = −scale.
// One block per response, 8 bytes per scored row.
#include "cuda/dispatch.h"
#include "cuda/response.h"

namespace simper::cuda {

namespace {

SIMT_KERNEL(kResponseThreads)
sft_loss_kernel(float* mean, float* loss, float* coefficient, const float* logp,
                const int32_t* responses, float scale, IndexCheck check) {
  SIMT_SHARED(memory);
  double* partials = memory.take<double>(kResponseThreads / 32);
  const int64_t r = simt::block().x;
  Response response;
  if (!read_response(response, check, responses, r)) return;
  const auto length = static_cast<double>(response.length());
  const double total = sum_logp(response, logp, partials);
  if (simt::thread() == 0) {
    mean[r] = static_cast<float>(length > 0 ? total / length : 0.0);
    loss[r] = static_cast<float>(length > 0 ? -scale * total : 0.0);
  }
  for (int64_t n = response.begin + simt::thread(); n < response.end; n += simt::threads()) {
    coefficient[n] = -scale;
  }
}

}  // namespace

void sft_loss(Context& context, Tensor mean, Tensor loss, Tensor coefficient, Tensor logp,
              Tensor responses, float scale) {
  CudaContext& cuda = cuda_of(context);
  const IndexCheck check = check_responses(cuda, "sft_loss", logp.rows());
  const simt::Grid grid{static_cast<unsigned>(responses.rows())};
  simt::launch<sft_loss_kernel>(cuda, grid, kResponseThreads, kResponseSharedBytes,
                                mean.row<float>(0), loss.row<float>(0), coefficient.row<float>(0),
                                logp.row<const float>(0), responses.row<const int32_t>(0), scale,
                                check);
}

}  // namespace simper::cuda
