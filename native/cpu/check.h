#pragma once
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace simper::cpu {

// Every value of an index table lies in [low, high): what contracts cannot see, because it is in
// memory. Run before the parallel part, where an exception could not leave. Throws `gather_rows:
// rows[3] is 70, expected -1 <= rows < 64`.
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

// Segments {start, end, prefix_start, prefix_end} lie in [0, T]. Throws
// `attention_forward: segments[1] is {3, 99, 0, 3}, expected 0 <= start <= end <= 40 and the same
// of the prefix`.
inline void check_segments(const char* op, const Tensor& segments, int64_t T) {
  for (int64_t s = 0; s < segments.rows(); ++s) {
    const int32_t* row = segments.row<int32_t>(s);
    const auto inside = [T](int64_t begin, int64_t end) {
      return 0 <= begin && begin <= end && end <= T;
    };
    if (inside(row[0], row[1]) && inside(row[2], row[3])) continue;
    std::string values;
    for (int i = 0; i < 4; ++i) values += (i ? ", " : "") + std::to_string(row[i]);
    throw ContractError(std::string(op) + ": segments[" + std::to_string(s) + "] is {" + values +
                        "}, expected 0 <= start <= end <= " + std::to_string(T) +
                        " and the same of the prefix");
  }
}

// Ranges {begin, length} lie in [0, rows).
inline void check_ranges(const char* op, const Tensor& ranges, int64_t rows) {
  for (int64_t t = 0; t < ranges.rows(); ++t) {
    const int64_t begin = ranges.row<int32_t>(t)[0], length = ranges.row<int32_t>(t)[1];
    if (begin >= 0 && length >= 0 && begin + length <= rows) continue;
    throw ContractError(std::string(op) + ": ranges[" + std::to_string(t) + "] is {" +
                        std::to_string(begin) + ", " + std::to_string(length) +
                        "}, expected {begin, length} inside the cache's " + std::to_string(rows) +
                        " rows");
  }
}

}  // namespace simper::cpu
