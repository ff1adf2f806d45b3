#pragma once
#include <cstdint>
#include <vector>

namespace simper::cpu {

// At least n elements of working memory for the op that runs on this stream's thread, until the
// next call with the same T. It grows to the largest op and is then never allocated again. Contents
// are undefined.
template <class T>
T* scratch(int64_t n) {
  thread_local std::vector<T> memory;
  if (static_cast<int64_t>(memory.size()) < n) memory.resize(static_cast<std::size_t>(n));
  return memory.data();
}

}  // namespace simper::cpu
