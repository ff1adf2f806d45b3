#pragma once
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace simper::cpu {

// Every value of an index table lies in [low, high): what contracts cannot see, because it is in memory. Run
// before the parallel part, where an exception could not leave.
// Throws `gather_rows: rows[3] is 70, expected -1 <= rows < 64`.
inline void check_indices(const char* op, const char* name, const Tensor& t, int64_t low,
                          int64_t high) {
  const int64_t columns = t.row_size();
  for (int64_t i = 0; i < t.rows(); ++i) {
    const int32_t* row = t.row<int32_t>(i);
    for (int64_t j = 0; j < columns; ++j) {
      if (row[j] >= low && row[j] < high) continue;
      std::string place = name;
      place += '[' + std::to_string(i) + ']';
      if (t.rank > 1) place += '[' + std::to_string(j) + ']';
      throw ContractError(std::string(op) + ": " + place + " is " + std::to_string(row[j]) +
                          ", expected " + std::to_string(low) + " <= " + name + " < " +
                          std::to_string(high));
    }
  }
}

}  // namespace simper::cpu
