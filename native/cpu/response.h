#pragma once
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace simper::cpu {

// One response of a losses' `responses` table: its scored rows [begin, end) in logp, and its side
// of the pair.
struct Response {
  int64_t begin, end;
  bool rejected;
  int64_t length() const { return end - begin; }
};

inline Response response(const Tensor& responses, int64_t r) {
  const int32_t* row = responses.row<int32_t>(r);
  return {row[0], row[1], row[2] == 1};
}

// Sum of logp over the response.
inline double sum_logp(const Response& r, const float* logp) {
  double sum = 0;
  for (int64_t n = r.begin; n < r.end; ++n) sum += logp[n];
  return sum;
}

// Throws `simper_loss: responses[2] is {4, 9, 0}, expected ...` before anything is written.
inline void check_responses(const char* op, const Tensor& responses, int64_t N) {
  for (int64_t r = 0; r < responses.rows(); ++r) {
    const int32_t* row = responses.row<int32_t>(r);
    const bool ok = 0 <= row[0] && row[0] <= row[1] && row[1] <= N && (row[2] == 0 || row[2] == 1);
    if (ok) continue;
    throw ContractError(std::string(op) + ": responses[" + std::to_string(r) + "] is {" +
                        std::to_string(row[0]) + ", " + std::to_string(row[1]) + ", " +
                        std::to_string(row[2]) + "}, expected {begin, end, side} with 0 <= begin" +
                        " <= end <= " + std::to_string(N) + " = size of logp, side 0 or 1");
  }
}

// The same where rows come in pairs: the chosen response in an even row, the rejected one after it.
inline void check_pairs(const char* op, const Tensor& responses, int64_t N) {
  check_responses(op, responses, N);
  for (int64_t r = 0; r < responses.rows(); ++r) {
    const int32_t* row = responses.row<int32_t>(r);
    if (row[2] == r % 2) continue;
    throw ContractError(std::string(op) + ": responses[" + std::to_string(r) + "] is {" +
                        std::to_string(row[0]) + ", " + std::to_string(row[1]) + ", " +
                        std::to_string(row[2]) + "}, expected side 0 (chosen) in even rows and" +
                        " side 1 (rejected) in odd ones");
  }
}

}  // namespace simper::cpu
