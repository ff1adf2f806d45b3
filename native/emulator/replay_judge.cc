#include "emulator/replay_judge.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace simper::replay {
namespace {

// No element may be this many times worse than the typical one: an error norm hides a single one.
constexpr double kWorst = 16;

std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

double half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double size = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  if (exponent == 31) size = mantissa ? NAN : INFINITY;
  return bits & 0x8000 ? -size : size;
}

double element(DType dtype, const std::byte* p) {
  const auto read = [p](auto value) {
    std::memcpy(&value, p, sizeof value);
    return value;
  };
  switch (dtype) {
    case DType::f32:
      return read(float{});
    case DType::bf16:
      return static_cast<float>(read(bf16{}));
    case DType::f16:
      return half(read(uint16_t{}));
    case DType::i32:
      return read(int32_t{});
  }
  return NAN;
}

// Calls f(row, first byte in the memory of the owner, bytes) for every row.
template <class F>
void each_row(const Argument& argument, F&& f) {
  const Tensor& view = argument.view;
  const int64_t size = size_of(view.dtype);
  for (int64_t t = 0; t < view.rows(); ++t) {
    f(t, (argument.offset + t * view.row_stride) * size, view.row_size() * size);
  }
}

std::optional<std::string> relative_error(const std::vector<double>& actual,
                                          const std::vector<double>& expected, double limit) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  const double typical = std::sqrt(norm / std::max<double>(1, expected.size()));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double allowed = kWorst * limit * (std::abs(expected[i]) + typical);
    if (std::abs(actual[i] - expected[i]) <= allowed) continue;
    return "element " + std::to_string(i) + " is " + text_of(actual[i]) + ", expected " +
           text_of(expected[i]) + " ± " + text_of(allowed);
  }
  const double relative = norm == 0 ? std::sqrt(error) : std::sqrt(error / norm);
  if (relative <= limit) return std::nullopt;
  return "relative error " + text_of(relative) + ", expected at most " + text_of(limit);
}

}  // namespace

std::vector<double> values_of(const Argument& argument, const std::byte* memory) {
  const int64_t size = size_of(argument.view.dtype);
  std::vector<double> values;
  values.reserve(static_cast<size_t>(argument.view.size()));
  each_row(argument, [&](int64_t, int64_t begin, int64_t bytes) {
    for (int64_t at = begin; at < begin + bytes; at += size) {
      values.push_back(element(argument.view.dtype, memory + at));
    }
  });
  return values;
}

std::optional<std::string> mismatch(const Argument& argument, const std::vector<double>& actual) {
  const std::vector<double>& expected = argument.reference;
  if (argument.measure == Measure::relative) {
    return relative_error(actual, expected, argument.limit);
  }
  const bool exact = argument.measure == Measure::exact;
  for (size_t i = 0; i < expected.size(); ++i) {
    const bool ok =
        exact ? actual[i] == expected[i] || (std::isnan(actual[i]) && std::isnan(expected[i]))
              : std::abs(actual[i] - expected[i]) <= argument.limit;
    if (ok) continue;
    return "element " + std::to_string(i) + " is " + text_of(actual[i]) + ", expected " +
           (exact ? "exactly " : "") + text_of(expected[i]) +
           (exact ? "" : " ± " + text_of(argument.limit));
  }
  return std::nullopt;
}

std::optional<std::string> trespass(const Case& one, uint32_t owner, const std::byte* after) {
  const Argument& argument = one.arguments[owner];
  const std::vector<std::byte>& before = argument.before;
  if (before.empty() || std::memcmp(before.data(), after, before.size()) == 0) return std::nullopt;
  // What may change: the owner's rows if the op writes them, or if another argument lies over them.
  const bool shared =
      std::any_of(one.arguments.begin(), one.arguments.end(), [&](const Argument& other) {
        return other.is_tensor && other.owner == owner && &other != &argument;
      });
  const bool writable = argument.role != Role::in || shared;
  std::vector<bool> inside(before.size(), false);
  each_row(argument, [&](int64_t, int64_t begin, int64_t bytes) {
    std::fill_n(inside.begin() + begin, bytes, true);
  });
  const int64_t size = size_of(argument.view.dtype);
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i] == after[i] || (inside[i] && writable)) continue;
    const int64_t at = static_cast<int64_t>(i) / size - argument.offset;
    const int64_t stride = std::max<int64_t>(1, argument.view.row_stride);
    const int64_t row = at >= 0 ? at / stride : -((-at - 1) / stride) - 1;
    const std::string place =
        "row " + std::to_string(row) + ", column " + std::to_string(at - row * stride);
    return inside[i] ? "the input changed at " + place : "memory at " + place + " was written";
  }
  return std::nullopt;
}

std::optional<std::string> difference(const Argument& argument, const std::byte* first,
                                      const std::byte* other) {
  std::optional<std::string> found;
  each_row(argument, [&](int64_t t, int64_t begin, int64_t bytes) {
    if (found || std::memcmp(first + begin, other + begin, static_cast<size_t>(bytes)) == 0) return;
    const int64_t size = size_of(argument.view.dtype);
    int64_t at = begin;
    while (std::memcmp(first + at, other + at, static_cast<size_t>(size)) == 0) at += size;
    const DType dtype = argument.view.dtype;
    found = "row " + std::to_string(t) + ", column " + std::to_string((at - begin) / size) +
            " is " + text_of(element(dtype, other + at)) + ", was " +
            text_of(element(dtype, first + at)) + " in the first run";
  });
  return found;
}

}  // namespace simper::replay
