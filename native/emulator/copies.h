#pragma once
#include "emulator/runtime.h"

namespace simper::simt {

// The copies of one thread that are in flight, oldest first.
class CopyQueue {
 public:
  // False when more are in flight than any kernel here needs: a wait is missing.
  bool push(const Copy& copy) {
    if (tail_ - head_ == kCopies) return false;
    copies_[tail_++ % kCopies] = copy;
    return true;
  }
  bool commit() {
    if (last_group_ - first_group_ == kGroups) return false;
    ends_[last_group_++ % kGroups] = tail_;
    return true;
  }
  bool pop(int groups, Copy& copy) {
    while (last_group_ - first_group_ > static_cast<unsigned>(groups)) {
      if (head_ == ends_[first_group_ % kGroups]) {
        ++first_group_;
        continue;
      }
      copy = copies_[head_++ % kCopies];
      return true;
    }
    return false;
  }
  bool empty() const { return head_ == tail_; }
  void clear() { head_ = tail_ = first_group_ = last_group_ = 0; }

 private:
  static constexpr unsigned kCopies = 512, kGroups = 64;
  unsigned head_ = 0, tail_ = 0, first_group_ = 0, last_group_ = 0;
  unsigned ends_[kGroups];  // of each group: where in the queue its copies end
  Copy copies_[kCopies];
};

}  // namespace simper::simt
