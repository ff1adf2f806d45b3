#include "emulator/shared.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, bytes) ((void)(begin), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(begin, bytes) ((void)(begin), (void)(bytes))
#endif

namespace simper::simt {
namespace {

constexpr char kNaN = static_cast<char>(0xff);  // in every byte: NaN as f32 and as bf16

size_t padded(size_t bytes) {
  return (bytes + 127) / 128 * 128;
}

}  // namespace

SharedArena::~SharedArena() {
  end_launch();
}

void SharedArena::end_launch() {
  if (!memory_) return;
  ASAN_UNPOISON_MEMORY_REGION(memory_, reserved_);
#if defined(SIMPER_TSAN)
  munmap(memory_, reserved_);
  memory_ = nullptr;
#endif
}

void SharedArena::begin_block(size_t bytes) {
  const size_t wanted = padded(bytes) + kMaxArrays * kRedZone;
  end_launch();
  if (!memory_ || wanted > reserved_) {
    if (memory_) munmap(memory_, reserved_);
    void* memory =
        mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw MemoryError("no memory for the shared memory of a block");
    memory_ = static_cast<char*>(memory);
    reserved_ = wanted;
  }
  bytes_ = bytes;
  count_ = 0;
  std::memset(memory_, kNaN, padded(bytes) + kMaxArrays * kRedZone);
  ASAN_POISON_MEMORY_REGION(memory_, reserved_);
}

void* SharedArena::take(size_t& offset, size_t bytes) {
  // Every thread takes the same arrays; the first to come lays them out.
  const auto known = std::find_if(arrays_, arrays_ + count_, [&](const Array& array) {
    return array.begin == offset && array.end == offset + bytes;
  });
  if (known == arrays_ + count_) {
    const size_t zones = static_cast<size_t>(std::count_if(
        arrays_, arrays_ + count_, [&](const Array& array) { return array.begin < offset; }));
    const size_t on_device = offset - zones * kRedZone;  // arrays back to back
    if (on_device + bytes > bytes_ || count_ == kMaxArrays) return nullptr;
    arrays_[count_++] = {offset, offset + bytes, offset + padded(bytes) + kRedZone};
    ASAN_UNPOISON_MEMORY_REGION(memory_ + offset, bytes);
  }
  void* result = memory_ + offset;
  offset += padded(bytes) + kRedZone;
  return result;
}

bool SharedArena::intact() const {
#if !defined(__SANITIZE_ADDRESS__)
  const auto untouched = [](char byte) { return byte == kNaN; };
  for (const Array* array = arrays_; array != arrays_ + count_; ++array) {
    if (!std::all_of(memory_ + array->end, memory_ + array->next, untouched)) return false;
  }
#endif
  return true;
}

bool SharedArena::contains(const void* p, size_t bytes) const {
  const char* begin = static_cast<const char*>(p);
  return begin >= memory_ && begin + bytes <= memory_ + reserved_;
}

}  // namespace simper::simt
