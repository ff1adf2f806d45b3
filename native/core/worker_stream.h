#pragma once
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/stream.h"

namespace simper {

// What a device adds to the worker thread of its streams. Everything here runs on that thread.
class StreamHooks {
 public:
  virtual ~StreamHooks() = default;
  // The context that every op of the stream gets, made before the first and destroyed after the
  // last.
  virtual std::unique_ptr<Context> make_context() = 0;
  // Before a `finish` reports, and after each op of a synchronous stream: waits for the device and
  // throws what ops left behind there. An error that came earlier goes first.
  virtual void settle(Context&) {}
};

// One worker thread with a first-in, first-out queue: the stream of every device. Each op runs
// between its context's `begin` and `end`.
class WorkerStream : public Stream {
 public:
  WorkerStream(std::unique_ptr<StreamHooks> hooks, bool synchronous);
  ~WorkerStream() override;  // drops what has not started, waits for what has

  bool stuck() const override { return stuck_.load(std::memory_order_relaxed); }
  void enqueue(const char* op, Command command) override;
  void finish(std::function<void(std::exception_ptr)> done) override;
  void record(std::shared_ptr<Event> event) override;
  std::vector<OpTime> take_profile() override;

 private:
  struct Entry {
    const char* op = nullptr;  // null for a `finish` or `record`, which run even after an error
    Command command;
    std::function<void(std::exception_ptr)> done;
    std::shared_ptr<Event> event;
    int64_t number = 0;  // of the recording
  };

  void push(Entry entry);
  void work();
  void run(Entry& entry, Context& context);
  void settle(Context& context);
  void add_time(const char* op, double seconds);

  const std::unique_ptr<StreamHooks> hooks_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Entry> ring_;  // grows until the longest step fits, then never again
  std::size_t head_ = 0, count_ = 0;
  std::atomic<bool> stop_ = false;  // changed under the mutex
  std::atomic<bool> stuck_ = false;
  std::exception_ptr error_;  // worker only, or while the queue is idle
  const bool synchronous_;
  std::condition_variable idle_;
  bool busy_ = false;  // an entry has been taken and not finished; kept by synchronous streams
  std::mutex profile_mutex_;
  std::vector<OpTime> profile_;  // a few dozen names: found by a walk over pointers
  std::thread worker_;
};

}  // namespace simper
