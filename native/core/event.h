#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

namespace simper {

class Context;
class SettleChecks;

// A point in the work of one stream that other streams wait for. Recordings are numbered where they
// are enqueued; a wait is for the last one that was enqueued before it. So what waits was always
// enqueued after what it waits for, and streams that wait for one another cannot block for ever.
class Event {
 public:
  virtual ~Event() = default;

  // A new recording is enqueued: its number. On the thread that enqueues.
  int64_t issue();
  // Number of the last one; 0 while there is none.
  int64_t issued() const;

  // The recording stream got to recording `number`, with the first error since it was last waited
  // for, or null. On its worker, or wherever the stream is closed with a null context.
  void record(int64_t number, Context* context, std::exception_ptr error);
  // Returns once recording `number` was reached, and later work of `context` then comes after what
  // the recording stream had enqueued by then. Throws the error that stream had, and DeviceError
  // when the stream that waits is closed meanwhile. On the worker of the stream that waits.
  void wait(int64_t number, Context& context);
  // Whether the device has done the work before the last recording that was reached.
  virtual bool passed() { return true; }

 protected:
  // What a device that works behind its worker's back adds: to mark the point in the order of its
  // own queue, and to let another of its queues wait for the point.
  virtual void mark(Context&) {}
  virtual void follow(Context&) {}

 private:
  mutable std::mutex mutex_;
  std::condition_variable reached_changed_;
  int64_t issued_ = 0, reached_ = 0;
  // An error of recording n is that of earlier ones, too, for whoever comes late to wait for them.
  int64_t failed_ = 0;
  std::exception_ptr error_;
  std::shared_ptr<SettleChecks> checks_;  // of the recording stream
};

}  // namespace simper
