#pragma once
#include "cuda/block_sum.h"
#include "cuda/check.h"
#include "cuda/fault_text.h"

namespace simper::cuda {

constexpr unsigned kResponseThreads = 256;
constexpr size_t kResponseSharedBytes = 128;  // what sum_logp takes

// One response of a losses' `responses` table: its scored rows [begin, end) in logp, and its side
// of the pair.
struct Response {
  int64_t begin, end;
  bool rejected;
  SIMT_DEVICE int64_t length() const { return end - begin; }
};

inline IndexCheck check_responses(CudaContext& cuda, const char* op, int64_t N) {
  return cuda.add_check({op, "responses", 3, 0, N, response_text});
}

// Whether response r may be used; one that may not is noted.
SIMT_DEVICE bool read_response(Response& response, const IndexCheck& check,
                               const int32_t* responses, int64_t r) {
  const int32_t begin = responses[3 * r], end = responses[3 * r + 1], side = responses[3 * r + 2];
  response = {begin, end, side == 1};
  if (0 <= begin && begin <= end && end <= check.high && (side == 0 || side == 1)) return true;
  report(check, r, begin, end, side);
  return false;
}

inline IndexCheck check_pairs(CudaContext& cuda, const char* op, int64_t N) {
  return cuda.add_check({op, "responses", 3, 0, N, pair_text});
}

// The same where rows come in pairs: the chosen response in an even row, the rejected one after it.
SIMT_DEVICE bool read_paired_response(Response& response, const IndexCheck& check,
                                      const int32_t* responses, int64_t r) {
  if (!read_response(response, check, responses, r)) return false;
  const auto side = static_cast<int32_t>(r % 2);
  if (response.rejected == (side == 1)) return true;
  report(check, r, responses[3 * r], responses[3 * r + 1], responses[3 * r + 2]);
  return false;
}

// Sum of logp over the response, by the whole block: f64, in an order that depends on its length.
// Once it returns, logp has been read and may be written over.
SIMT_DEVICE double sum_logp(const Response& response, const float* logp, double* partials) {
  double sum = 0;
  for (int64_t n = response.begin + simt::thread(); n < response.end; n += simt::threads()) {
    sum += logp[n];
  }
  return block_sum(sum, partials);
}

}  // namespace simper::cuda
