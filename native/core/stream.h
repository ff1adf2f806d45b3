#pragma once
#include <cstddef>
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/device.h"
#include "core/event.h"

namespace simper {

// One queued piece of work: a callable stored in place, so that enqueueing an op allocates nothing.
class Command {
 public:
  static constexpr std::size_t kCapacity = 576;  // nine tensors and a handful of scalars

  Command() = default;
  template <class F>
  requires(!std::is_same_v<std::decay_t<F>, Command>) explicit Command(F&& f) {
    using Callable = std::decay_t<F>;
    static_assert(sizeof(Callable) <= kCapacity, "raise Command::kCapacity");
    new (storage_) Callable(std::forward<F>(f));
    run_ = [](void* self, Context& context) { (*static_cast<Callable*>(self))(context); };
    move_ = [](void* self, void* to) {
      if (to) new (to) Callable(std::move(*static_cast<Callable*>(self)));
      static_cast<Callable*>(self)->~Callable();
    };
  }
  Command(Command&& other) noexcept { take(other); }
  Command& operator=(Command&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  ~Command() { reset(); }

  void operator()(Context& context) { run_(storage_, context); }

 private:
  void reset() {
    if (move_) move_(storage_, nullptr);
    move_ = nullptr;
  }
  void take(Command& other) {
    run_ = other.run_;
    move_ = other.move_;
    if (move_) move_(other.storage_, storage_);
    other.move_ = nullptr;
  }

  alignas(16) std::byte storage_[kCapacity];
  void (*run_)(void*, Context&) = nullptr;
  void (*move_)(void* self, void* to) = nullptr;  // moves to `to` (or just destroys)
};

// Time an op has taken on a stream so far.
struct OpTime {
  const char* op;
  int64_t calls;
  double seconds;
};

// An ordered queue of work on a device. Enqueueing never waits. The first exception is kept, later
// ops are skipped, and the next `finish` reports and clears it, like a sticky CUDA error.
class Stream {
 public:
  virtual ~Stream() = default;
  // Whether its worker is inside a call that may never return (Context::set_stuck): such a stream
  // can only be left behind.
  virtual bool stuck() const { return false; }
  // `op` must outlive the stream (a string literal of the op table); it names the op in errors.
  virtual void enqueue(const char* op, Command command) = 0;
  // Runs `done(error)` on the stream's thread after everything enqueued so far, even after an
  // error; `error` is null, or the first exception since the last `finish`. A stream that is
  // destroyed first calls `done` with a DeviceError.
  virtual void finish(std::function<void(std::exception_ptr error)> done) = 0;
  // Records the event after everything enqueued so far, even after an error, which those that wait
  // for the event get, too. A stream that is closed first gives them a DeviceError.
  virtual void record(std::shared_ptr<Event> event) = 0;
  // What is enqueued from now on runs after what the event's stream had enqueued when it was last
  // recorded. Nothing to do where it never was.
  void wait(std::shared_ptr<Event> event) {
    const int64_t number = event->issued();
    if (number == 0) return;
    enqueue("wait", Command([event = std::move(event), number](Context& context) {
              event->wait(number, context);
            }));
  }
  // Where the stream's time went since it was opened or last asked, in no particular order.
  virtual std::vector<OpTime> take_profile() = 0;
  // Whether times are wanted from now on. A device that can always take them ignores this.
  virtual void set_profiling(bool /*wanted*/) {}
  // A named range around what is enqueued between the two calls, for profilers that draw timelines.
  virtual void push_range(std::string /*name*/) {}
  virtual void pop_range() {}
};

}  // namespace simper
