#pragma once
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "core/stream.h"

namespace simper::cpu {

// One worker thread with a first-in, first-out queue. The worker owns the OpenMP team that the ops
// use.
class CpuStream final : public Stream {
 public:
  CpuStream(int threads, bool synchronous);
  ~CpuStream() override;  // drops what has not started, waits for what has

  void enqueue(const char* op, Command command) override;
  void finish(std::function<void(std::exception_ptr)> done) override;
  std::vector<OpTime> take_profile() override;

 private:
  struct Entry {
    const char* op = nullptr;  // null for a `finish`, which runs even after an error
    Command command;
    std::function<void(std::exception_ptr)> done;
  };

  void push(Entry entry);
  void work(int threads);
  void run(Entry& entry, Context& context);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Entry> ring_;  // grows until the longest step fits, then never again
  std::size_t head_ = 0, count_ = 0;
  bool stop_ = false;
  std::exception_ptr error_;  // worker only, or while the queue is idle
  const bool synchronous_;
  std::condition_variable idle_;
  bool busy_ = false;  // an entry has been taken and not finished; kept by synchronous streams
  std::mutex profile_mutex_;
  std::vector<OpTime> profile_;  // a few dozen names: found by a walk over pointers
  std::thread worker_;
};

}  // namespace simper::cpu
