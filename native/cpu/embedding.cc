// forward : y[t] = weight[tokens[t]]
// backward: d_weight[v] += sum of dy[r] over the rows r that hold token v. The host lists the rows
// of each
//           token that occurs, so every row of d_weight has one writer and one order.
#include <vector>

#include "cpu/check.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/ops.h"

namespace simper::cpu {

namespace {

[[noreturn]] void reject(const std::string& received, const std::string& expected) {
  throw ContractError("embedding_backward: " + received + ", expected " + expected);
}

// Two entries for one token would be two threads adding to one row.
void check_distinct(const Tensor& unique, int64_t V) {
  auto* seen = scratch<uint8_t>(V);
  std::memset(seen, 0, static_cast<std::size_t>(V));
  const int32_t* token = unique.row<int32_t>(0);
  for (int64_t u = 0; u < unique.rows(); ++u) {
    if (seen[token[u]]) {
      reject("unique[" + std::to_string(u) + "] is " + std::to_string(token[u]) + " again",
             "each token once");
    }
    seen[token[u]] = 1;
  }
}

void check_offsets(const Tensor& offsets, int64_t listed) {
  const int32_t* offset = offsets.row<int32_t>(0);
  int32_t last = 0;
  for (int64_t u = 0; u < offsets.rows(); ++u) {
    if (offset[u] < last || offset[u] > listed) {
      reject("offsets[" + std::to_string(u) + "] is " + std::to_string(offset[u]),
             std::to_string(last) + " <= offsets <= " + std::to_string(listed) +
                 ", in ascending order");
    }
    last = offset[u];
  }
}

}  // namespace

void embedding_forward(Context&, Tensor y, Tensor tokens, Tensor weight) {
  check_indices("embedding_forward", "tokens", tokens, 0, weight.rows());
  const int32_t* token = tokens.row<int32_t>(0);
  const auto bytes = static_cast<std::size_t>(weight.row_size() * size_of(weight.dtype));
  with_dtype(weight.dtype, [&]<class T>(T*) {
    parallel_rows(y.rows(), 2 * static_cast<int64_t>(bytes),
                  [&](int64_t t) { std::memcpy(y.row<T>(t), weight.row<T>(token[t]), bytes); });
  });
}

void embedding_backward(Context&, Tensor d_weight, Tensor dy, Tensor unique, Tensor offsets,
                        Tensor rows) {
  check_indices("embedding_backward", "unique", unique, 0, d_weight.rows());
  check_indices("embedding_backward", "rows", rows, 0, dy.rows());
  check_distinct(unique, d_weight.rows());
  check_offsets(offsets, rows.rows());
  constexpr int64_t kColumns =
      512;  // of sums at a time: a frequent token reads its rows along, not across
  const int32_t* token = unique.row<int32_t>(0);
  const int32_t* offset = offsets.row<int32_t>(0);
  const int32_t* listed = rows.row<int32_t>(0);
  with_dtype(dy.dtype, [&]<class T>(T*) {
    parallel_tasks(unique.rows(), [&](int64_t u) {
      for (int64_t begin = 0; begin < dy.row_size(); begin += kColumns) {
        const int64_t columns = std::min(kColumns, dy.row_size() - begin);
        float sums[kColumns] = {};
        for (int32_t i = offset[u]; i < offset[u + 1]; ++i) {
          const T* row = dy.row<T>(listed[i]) + begin;
          for_lanes(columns, [&](int64_t c, int64_t k) {
            store(sums + c, load(sums + c) + load(row + c, k));
          });
        }
        float* out = d_weight.row<float>(token[u]) + begin;
        for_lanes(columns, [&](int64_t c, int64_t k) {
          store(out + c, load(out + c, k) + load(sums + c), k);
        });
      }
    });
  });
}

}  // namespace simper::cpu
