#pragma once
// What an await says of a fault: the words of cpu/check.h and of the CPU ops, so that both devices
// reject a call alike. A check without a text of its own is a range (index_text).
#include <string>

#include "cuda/context.h"

namespace simper::cuda {

// gather_rows: rows[3] is 70, expected -1 <= rows < 64
inline std::string index_text(const CudaContext::Check& check, const Fault& fault) {
  const std::string name = check.argument;
  std::string place = name + '[' + std::to_string(fault.position / check.columns) + ']';
  if (check.columns > 1) place += '[' + std::to_string(fault.position % check.columns) + ']';
  return std::string(check.op) + ": " + place + " is " + std::to_string(fault.value) +
         ", expected " + std::to_string(check.low) + " <= " + name + " < " +
         std::to_string(check.high);
}

// `position` is the row of the table, and the row's first `count` values are shown.
inline std::string row_text(const CudaContext::Check& check, const Fault& fault, int count) {
  const int32_t values[] = {fault.value, fault.more[0], fault.more[1], fault.more[2]};
  std::string text = std::string(check.op) + ": " + check.argument + '[' +
                     std::to_string(fault.position) + "] is {";
  for (int i = 0; i < count; ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "}, expected ";
}

// Segments {start, end, prefix_start, prefix_end} of T = high rows.
inline std::string segment_text(const CudaContext::Check& check, const Fault& fault) {
  return row_text(check, fault, 4) + "0 <= start <= end <= " + std::to_string(check.high) +
         " and the same of the prefix";
}

// Ranges {begin, length} of a cache of `high` rows.
inline std::string range_text(const CudaContext::Check& check, const Fault& fault) {
  return row_text(check, fault, 2) + "{begin, length} inside the cache's " +
         std::to_string(check.high) + " rows";
}

// Responses {begin, end, side} in `high` log-probs.
inline std::string response_text(const CudaContext::Check& check, const Fault& fault) {
  return row_text(check, fault, 3) +
         "{begin, end, side} with 0 <= begin <= end <= " + std::to_string(check.high) +
         " = size of logp, side 0 or 1";
}

// The same where rows come in pairs: the fault is in the range, or else in the side.
inline std::string pair_text(const CudaContext::Check& check, const Fault& fault) {
  const int32_t begin = fault.value, end = fault.more[0], side = fault.more[1];
  const bool in_range = 0 <= begin && begin <= end && end <= check.high;
  if (!in_range || (side != 0 && side != 1)) return response_text(check, fault);
  return row_text(check, fault, 3) +
         "side 0 (chosen) in even rows and side 1 (rejected) in odd ones";
}

// A list of begins and ends up to `high`; the second value is the entry before.
inline std::string offset_text(const CudaContext::Check& check, const Fault& fault) {
  const std::string name = check.argument;
  return std::string(check.op) + ": " + name + '[' + std::to_string(fault.position) + "] is " +
         std::to_string(fault.value) + ", expected " + std::to_string(fault.more[0]) +
         " <= " + name + " <= " + std::to_string(check.high) + ", in ascending order";
}

// A list of tokens in which one came twice.
inline std::string repeated_text(const CudaContext::Check& check, const Fault& fault) {
  return std::string(check.op) + ": " + check.argument + '[' + std::to_string(fault.position) +
         "] is " + std::to_string(fault.value) + " again, expected each token once";
}

inline std::string fault_text(const CudaContext::Check& check, const Fault& fault) {
  return (check.text ? check.text : index_text)(check, fault);
}

}  // namespace simper::cuda
