#pragma once
#include <optional>
#include <string>

#include "emulator/replay_file.h"

namespace simper::replay {

// The value of each element of the argument, row after row, in the memory of its owner.
std::vector<double> values_of(const Argument& argument, const std::byte* memory);

// What is wrong with `actual`, or nothing: the rules of test/ops/harness/tolerance.ts.
std::optional<std::string> mismatch(const Argument& argument, const std::vector<double>& actual);

// The first byte that the op had no business to change, or nothing. `owner` is an index into the
// arguments of `one`, `after` its memory after the call.
std::optional<std::string> trespass(const Case& one, uint32_t owner, const std::byte* after);

// Where the outputs of two runs differ in a bit, or nothing. `first` and `other` are the memory of
// the argument's owner.
std::optional<std::string> difference(const Argument& argument, const std::byte* first,
                                      const std::byte* other);

}  // namespace simper::replay
