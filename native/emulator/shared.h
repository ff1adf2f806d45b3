#pragma once
#include <cstddef>

namespace simper::simt {

// The shared memory of the block that runs. On the device its arrays lie back to back; here a red
// zone follows each: poisoned for AddressSanitizer, and looked at when the block ends.
class SharedArena {
 public:
  static constexpr size_t kLimit = 227 << 10;  // bytes of a block on sm_90; sm_80 has 163 KB
  ~SharedArena();

  // Everything NaN, nothing handed out. ThreadSanitizer gets new memory for every block.
  void begin_block(size_t bytes);
  // Null when a red zone was written; else the array that is too short, as text for a message.
  bool intact() const;
  void end_launch();

  // Null when the launch asked for less.
  void* take(size_t& offset, size_t bytes);
  bool contains(const void* p, size_t bytes) const;
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kRedZone = 128;  // keeps the alignment that arrays have on the device
  static constexpr int kMaxArrays = 64;

  char* memory_ = nullptr;
  size_t reserved_ = 0, bytes_ = 0;
  struct Array {
    size_t begin, end, next;  // next: where the red zone ends
  };
  Array arrays_[kMaxArrays];
  int count_ = 0;
};

}  // namespace simper::simt
